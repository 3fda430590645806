// Dot products of super-blocks with activations, in registers of AVX-512.
#pragma once

#include "avx512_words.h"
#include "super_activations.h"

namespace {

// Adds to `sum` the products of a super-block of each row with that of a token: `products` of quants and scales of
// sub-blocks.
template <typename Block>
KERNEL inline Floats add_super_block(const SuperBlocks<Block> & weights, SignedWords products,
                                     const SuperActivations<Block> & activations, Floats sum) {
    Floats result = multiply(to_floats(products), weights.scale);
    if (Format<Block>::HAS_MINIMUM) {
        __m512i minimums = _mm512_setzero_si512();
        for (int i = 0; i < SUB_BLOCKS<Block> / 2; i++) {
            minimums = _mm512_dpwssd_epi32(minimums, __m512i(weights.minimums[i]),
                                           _mm512_set1_epi32(activations.sums[i]));
        }
        result = subtract_product(result, _mm512_cvtepi32_ps(minimums), weights.minimum);
    }
    return multiply_add(result, broadcast(activations.scale), sum);
}

// Adds to sums[p][t] the products of a super-block of each row of panel p with that of token t. Not inlined: with a loop for
// each number of tokens in one function, the compiler moves more between memory and registers.
template <typename Block, int PANELS, int TOKENS>
KERNEL __attribute__((noinline)) void multiply_tokens(const SuperBlocks<Block> * weights,
                                                      const SuperActivations<Block> * activations,
                                                      Floats * const * sums) {
    constexpr int WORDS = SUB_BLOCK_WORDS<Block>;
    SignedWords products[PANELS][TOKENS] = {};
    for (int sub_block = 0; sub_block < SUB_BLOCKS<Block>; sub_block++) {
        __m512i dots[PANELS][TOKENS];
        for (int t = 0; t < TOKENS; t++) {
            for (int p = 0; p < PANELS; p++) {
                dots[p][t] = HAS_OFFSET<Block> ? _mm512_set1_epi32(activations[t].sums[sub_block])
                                               : _mm512_setzero_si512();
            }
        }
#pragma GCC unroll 8
        for (int i = 0; i < WORDS; i++) {
            const int word = sub_block * WORDS + i;
            for (int t = 0; t < TOKENS; t++) {
                const __m512i other = _mm512_set1_epi32(activations[t].quants[word]);
                for (int p = 0; p < PANELS; p++) {
                    const __m512i quants = __m512i(weights[p].quants[word]);
                    dots[p][t] = _mm512_dpbusd_epi32(dots[p][t], quants, other);
                }
            }
        }
        for (int t = 0; t < TOKENS; t++) {
            for (int p = 0; p < PANELS; p++) {
                products[p][t] += SignedWords(dots[p][t]) * weights[p].scales[sub_block];
            }
        }
    }
    for (int t = 0; t < TOKENS; t++) {
        for (int p = 0; p < PANELS; p++) {
            sums[p][t] = add_super_block(weights[p], products[p][t], activations[t], sums[p][t]);
        }
    }
}

}  // namespace
