// Dot products of blocks of weights with activations, in registers of AVX2.
#pragma once

#include "avx2_words.h"
#include "block_weights.h"
#include "panel.h"

namespace {

// See mul_mat_blocks.h.
template <typename Block>
KERNEL void unpack(const char * first, int64_t stride, WeightBlocks & blocks);
KERNEL void quantize(const float * numbers, ActivationBlock & block);
template <typename Weights, typename Activations>
KERNEL Floats add_block(const Weights & weights, Floats dots, const Activations & activations, Floats sum);

template <typename Block>
KERNEL inline void unpack(const char * first, int64_t stride, WideWeightBlocks & blocks) {
    WeightBlocks of_bytes;
    unpack<Block>(first, stride, of_bytes);
    widen<BLOCK_SIZE / 4>(of_bytes.quants, blocks.quants);
    blocks.scale = of_bytes.scale;
    blocks.offset = of_bytes.offset;
}

KERNEL inline void quantize(const float * numbers, WideActivationBlock & block) {
    ActivationBlock of_bytes;
    quantize(numbers, of_bytes);
    widen_bytes(of_bytes.quants, block.quants);
    block.scale = of_bytes.scale;
    block.scaled_sum = of_bytes.scaled_sum;
}

// Keeps the compiler from adding numbers in another order, for which it would need more registers than there are.
KERNEL inline void keep_order(__m256i & sum) { asm("" : "+x"(sum)); }

// Words that have the quants of a block of 32.
template <typename Block>
constexpr int BLOCK_WORDS = BLOCK_SIZE / (IS_WIDE<Block> ? 2 : 4);

// So many of them are added before both halves of a lane are: of bytes, the instruction adds two products into 16 bits, which
// hold so many such sums.
template <typename Block>
constexpr int RUN_OF_WORDS = IS_WIDE<Block>                              ? BLOCK_WORDS<Block>
                             : IS_NARROW<Block>                          ? 1
                             : HAS_FIFTH_BITS<Block> || IS_MXFP4<Block> ? 4
                                                                         : 8;

// sum + the products of a word of quants with `other`.
template <typename Block>
KERNEL inline __m256i add_products(__m256i sum, Words quants, __m256i other) {
    if constexpr (IS_WIDE<Block>) {
        return _mm256_add_epi32(sum, _mm256_madd_epi16(__m256i(quants), other));
    } else if constexpr (IS_NARROW<Block>) {
        // The instruction takes unsigned quants first: their sign moves to the other ones.
        const __m256i magnitudes = _mm256_abs_epi8(__m256i(quants)), others = _mm256_sign_epi8(other, __m256i(quants));
        return _mm256_add_epi16(sum, _mm256_maddubs_epi16(magnitudes, others));
    } else {
        return _mm256_add_epi16(sum, _mm256_maddubs_epi16(__m256i(quants), other));
    }
}

// The sum of each lane after a run of words.
template <typename Block>
KERNEL inline __m256i sum_of_run(__m256i run) {
    return IS_WIDE<Block> ? run : _mm256_madd_epi16(run, _mm256_set1_epi16(1));
}

// Each row's dot product of quants with those of the activations.
template <typename Block>
KERNEL inline Floats dot_products(const WeightBlocksOf<Block> & blocks, const int32_t * activations) {
    constexpr int RUN = RUN_OF_WORDS<Block>;
    __m256i dots = _mm256_setzero_si256();
    for (int first = 0; first < BLOCK_WORDS<Block>; first += RUN) {
        __m256i run = _mm256_setzero_si256();
        for (int i = first; i < first + RUN; i++) {
            run = add_products<Block>(run, blocks.quants[i], _mm256_set1_epi32(activations[i]));
        }
        dots = _mm256_add_epi32(dots, sum_of_run<Block>(run));
    }
    return _mm256_cvtepi32_ps(dots);
}

// Adds to sums[p][t] the products of a block of each row of panel p with that of token t: all dot products stay in
// registers, and a word is read once for several of them.
template <typename Block, int PANELS, int TOKENS>
KERNEL __attribute__((always_inline)) inline void multiply_tokens(
        const WeightBlocksOf<Block> (&panels)[PANELS], const ActivationBlockOf<Block> * activations, Floats * const * sums) {
    constexpr int WORDS = BLOCK_WORDS<Block>, RUN = RUN_OF_WORDS<Block>;
    __m256i run[PANELS][TOKENS], before[PANELS][TOKENS];
#pragma GCC unroll 16
    for (int i = 0; i < WORDS; i++) {
#pragma GCC unroll 4
        for (int t = 0; t < TOKENS; t++) {
            const __m256i other = _mm256_set1_epi32(activations[t].quants[i]);
#pragma GCC unroll 4
            for (int p = 0; p < PANELS; p++) {
                if (i > 0 && i % RUN == 0) {
                    const __m256i dots = sum_of_run<Block>(run[p][t]);
                    before[p][t] = i == RUN ? dots : _mm256_add_epi32(before[p][t], dots);
                }
                // A variable of its own: the compiler would keep an element of the array in memory.
                __m256i sum = i % RUN == 0 ? _mm256_setzero_si256() : run[p][t];
                sum = add_products<Block>(sum, panels[p].quants[i], other);
                keep_order(sum);
                run[p][t] = sum;
            }
        }
    }
#pragma GCC unroll 4
    for (int t = 0; t < TOKENS; t++) {
        // Stored when they are known for all panels: after a store, what they share would be read again.
        Floats added[PANELS];
#pragma GCC unroll 4
        for (int p = 0; p < PANELS; p++) {
            __m256i dots = sum_of_run<Block>(run[p][t]);
            dots = RUN < WORDS ? _mm256_add_epi32(dots, before[p][t]) : dots;
            added[p] = add_block(panels[p], _mm256_cvtepi32_ps(dots), activations[t], sums[p][t]);
        }
#pragma GCC unroll 4
        for (int p = 0; p < PANELS; p++) {
            sums[p][t] = added[p];
        }
    }
}

// See mul_mat_blocks.h. Not inlined, so that what unpacking keeps in registers does not take those of the loop.
template <typename Block, int PANELS>
KERNEL __attribute__((noinline)) void multiply_block_of_panels(
        const WeightBlocksOf<Block> (&weights)[PANELS], const ActivationBlockOf<Block> * activations, int64_t tokens,
        Floats (*sums)[TILE_TOKENS]) {
    Floats * columns[PANELS];
    for (int p = 0; p < PANELS; p++) {
        columns[p] = sums[p];
    }
    for (; tokens >= TOKENS_TOGETHER; tokens -= TOKENS_TOGETHER, activations += TOKENS_TOGETHER) {
        multiply_tokens<Block, PANELS, TOKENS_TOGETHER>(weights, activations, columns);
        for (Floats *& column : columns) {
            column += TOKENS_TOGETHER;
        }
    }
    if (tokens > 0) {
        with_count<TOKENS_TOGETHER - 1>(tokens, [&](auto count) KERNEL {
            multiply_tokens<Block, PANELS, count>(weights, activations, columns);
        });
    }
}

}  // namespace
