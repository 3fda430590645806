// Dot products of super-blocks with activations, in registers of AVX2.
#pragma once

#include <algorithm>

#include "avx2_weights.h"
#include "super_activations.h"

namespace {

// A word adds two products to each half of a lane. So many words fit into 16 bits; with an offset, the halves hold products
// of quants around zero. Wide quants add them to the lane.
template <typename Block>
constexpr int words_of_run() {
    using F = Format<Block>;
    constexpr int LARGEST = HAS_OFFSET<Block> ? F::OFFSET : F::LARGEST_QUANT;
    static_assert(IS_WIDE<Block> || F::LARGEST_QUANT * 2 * 127 <= INT16_MAX);
    return IS_WIDE<Block> ? SUB_BLOCK_WORDS<Block> : std::min(SUB_BLOCK_WORDS<Block>, INT16_MAX / (LARGEST * 2 * 127));
}

// The products of a run, times the scale of their sub-block.
template <typename Block>
KERNEL inline __m256i scaled(__m256i run, SubBlockScale scale) {
    return IS_WIDE<Block> ? _mm256_mullo_epi32(run, _mm256_srai_epi32(__m256i(scale), 16))
                          : _mm256_madd_epi16(run, __m256i(scale));
}

// Adds to sums[p][t] the products of a super-block of each row of panel p with that of token t. Not inlined, so that what
// unpacking keeps in registers does not take those of the products.
template <typename Block, int PANELS, int TOKENS>
KERNEL __attribute__((noinline)) void multiply_tokens(const SuperBlocks<Block> * panels,
                                                      const SuperActivations<Block> * activations,
                                                      Floats * const * sums) {
    using F = Format<Block>;
    constexpr int WORDS = SUB_BLOCK_WORDS<Block>, RUN = words_of_run<Block>();
    // An offset is that of a whole sub-block.
    static_assert(RUN > 0 && WORDS % RUN == 0 && (!HAS_OFFSET<Block> || RUN == WORDS));
    __m256i products[PANELS][TOKENS];
#pragma GCC unroll 4
    for (int p = 0; p < PANELS; p++) {
#pragma GCC unroll 4
        for (int t = 0; t < TOKENS; t++) {
            products[p][t] = _mm256_setzero_si256();
        }
    }
    for (int sub_block = 0; sub_block < SUB_BLOCKS<Block>; sub_block++) {
#pragma GCC unroll 8
        for (int first = 0; first < WORDS; first += RUN) {
            __m256i run[PANELS][TOKENS], start[TOKENS];
#pragma GCC unroll 4
            for (int t = 0; t < TOKENS; t++) {
                start[t] = HAS_OFFSET<Block> ? _mm256_set1_epi32(activations[t].sums[sub_block]) : _mm256_setzero_si256();
            }
#pragma GCC unroll 16
            for (int i = first; i < first + RUN; i++) {
                const int word = sub_block * WORDS + i;
#pragma GCC unroll 4
                for (int t = 0; t < TOKENS; t++) {
                    const __m256i other = _mm256_set1_epi32(activations[t].quants[word]);
#pragma GCC unroll 4
                    for (int p = 0; p < PANELS; p++) {
                        __m256i sum = i > first ? run[p][t] : start[t];
                        sum = add_products<Block>(sum, panels[p].quants[word], other);
                        keep_order(sum);
                        run[p][t] = sum;
                        // At once, while it is in a register.
                        if (i == first + RUN - 1) {
                            const __m256i product = scaled<Block>(sum, panels[p].scales[sub_block]);
                            products[p][t] = _mm256_add_epi32(products[p][t], product);
                        }
                    }
                }
            }
        }
    }
#pragma GCC unroll 4
    for (int p = 0; p < PANELS; p++) {
        const SuperBlocks<Block> & weights = panels[p];
#pragma GCC unroll 4
        for (int t = 0; t < TOKENS; t++) {
            Floats sum = multiply(_mm256_cvtepi32_ps(products[p][t]), weights.scale);
            if (F::HAS_MINIMUM) {
                __m256i minimums = _mm256_setzero_si256();
#pragma GCC unroll 8
                for (int i = 0; i < SUB_BLOCKS<Block> / 2; i++) {
                    const __m256i other = _mm256_set1_epi32(activations[t].sums[i]);
                    minimums = _mm256_add_epi32(minimums, _mm256_madd_epi16(__m256i(weights.minimums[i]), other));
                }
                sum = subtract_product(sum, _mm256_cvtepi32_ps(minimums), weights.minimum);
            }
            sums[p][t] = multiply_add(sum, broadcast(activations[t].scale), sums[p][t]);
        }
    }
}

}  // namespace
