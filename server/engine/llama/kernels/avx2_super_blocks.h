// Dot products of super-blocks with activations, in registers of AVX2.
#pragma once

#include <algorithm>

#include "avx2_weights.h"
#include "super_activations.h"

namespace {

// Keeps the compiler from adding numbers in another order, for which it would need more registers than
// there are.
KERNEL inline void keep_order(__m256i & sum) { asm("" : "+x"(sum)); }

// Adds to sums[0][t] the products of a super-block of each row of a panel with that of token t.
template <typename Block, int PANELS, int TOKENS>
KERNEL inline void multiply_tokens(const SuperBlocks<Block> * panels,
                                   const SuperActivations<Block> * activations,
                                   Floats * const * sums) {
    static_assert(PANELS == 1);
    const SuperBlocks<Block> & weights = panels[0];
    using F = Format<Block>;
    constexpr int WORDS = SUB_BLOCK_WORDS<Block>;
    constexpr bool SIGNED = F::HAS_CODEBOOK, HAS_OFFSET = F::OFFSET > 0 && !SIGNED;
    // A word adds two products to each half of a lane. So many words fit into 16 bits; with an offset,
    // the halves hold products of quants around zero.
    constexpr int LARGEST = SIGNED ? 127 : HAS_OFFSET ? F::OFFSET : F::LARGEST_QUANT;
    constexpr int RUN = std::min(WORDS, INT16_MAX / (LARGEST * 2 * 127));
    static_assert(RUN > 0 && WORDS % RUN == 0);
    static_assert(SIGNED || F::LARGEST_QUANT * 2 * 127 <= INT16_MAX);
    __m256i products[TOKENS], minimums[TOKENS];
    for (int t = 0; t < TOKENS; t++) {
        products[t] = minimums[t] = _mm256_setzero_si256();
    }
    for (int sub_block = 0; sub_block < SUB_BLOCKS<Block>; sub_block++) {
#pragma GCC unroll 8
        for (int run = 0; run < WORDS; run += RUN) {
            __m256i pairs[TOKENS];
            for (int t = 0; t < TOKENS; t++) {
                pairs[t] = HAS_OFFSET ? _mm256_set1_epi32(activations[t].sums[sub_block])
                                      : _mm256_setzero_si256();
            }
#pragma GCC unroll 8
            for (int i = run; i < run + RUN; i++) {
                const int word = sub_block * WORDS + i;
                const __m256i quants = __m256i(weights.quants[word]);
                for (int t = 0; t < TOKENS; t++) {
                    const __m256i other = _mm256_set1_epi32(activations[t].quants[word]);
                    pairs[t] = _mm256_add_epi16(pairs[t], products_of_bytes<SIGNED>(quants, other));
                    keep_order(pairs[t]);
                }
            }
            const __m256i scale = __m256i(weights.scales[sub_block]);
            for (int t = 0; t < TOKENS; t++) {
                products[t] = _mm256_add_epi32(products[t], _mm256_madd_epi16(pairs[t], scale));
            }
        }
    }
    for (int i = 0; F::HAS_MINIMUM && i < SUB_BLOCKS<Block> / 2; i++) {
        const __m256i two = __m256i(weights.minimums[i]);
        for (int t = 0; t < TOKENS; t++) {
            const __m256i other = _mm256_set1_epi32(activations[t].sums[i]);
            minimums[t] = _mm256_add_epi32(minimums[t], _mm256_madd_epi16(two, other));
        }
    }
    for (int t = 0; t < TOKENS; t++) {
        Floats sum = multiply(_mm256_cvtepi32_ps(products[t]), weights.scale);
        if (F::HAS_MINIMUM) {
            sum = subtract_product(sum, _mm256_cvtepi32_ps(minimums[t]), weights.minimum);
        }
        sums[0][t] = multiply_add(sum, broadcast(activations[t].scale), sums[0][t]);
    }
}

}  // namespace
