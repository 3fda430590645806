/* Products of super-blocks with one or two tokens, row by row, in registers of AVX-512.
 *
 * With more tokens a row of weights is in each lane (avx512_super_blocks.h): what is unpacked once serves all of them. That
 * reads 16 rows at a time, more streams than the processor tracks, and transposes them. Here neighbouring quants of one
 * row stay beside each other, as activations lie. Sums of a super-block are integers there and here, and the floats that
 * follow are computed in the same order: results are the same to the bit.
 */
#pragma once

#include "avx512_row_blocks.h"
#include "mul_mat_super_blocks.h"

namespace {

// The products of a super-block with that of a token; to be added are all lanes.
template <typename Block>
KERNEL inline __m512i products(const RowBlock<Block> & row, __m256i scales_of_sub_blocks,
                               const SuperActivations<Block> & activations) {
    __m512i sum = _mm512_setzero_si512();
    if (Format<Block>::OFFSET > 0) {
        const __m512i starts = _mm512_maskz_loadu_epi32(__mmask16((1u << SUB_BLOCKS<Block>) - 1),
                                                        activations.sums);
        sum = _mm512_mullo_epi32(_mm512_cvtepi16_epi32(scales_of_sub_blocks), starts);
    }
    for (int i = 0; i < 4; i++) {
        const __m512i others = load_64(activations.quants + LANES * i);
        if (Format<Block>::HAS_CODEBOOK) {
            const __m512i dots = _mm512_dpbusd_epi32(_mm512_setzero_si512(), row.quants[i], others);
            sum = _mm512_add_epi32(sum, _mm512_mullo_epi32(dots, row.scales[i]));
        } else {
            const __m512i pairs = _mm512_maddubs_epi16(row.quants[i], others);
            sum = _mm512_dpwssd_epi32(sum, pairs, row.scales[i]);
        }
    }
    return sum;
}

// Lane i of the result is the sum of the lanes of rows[i].
KERNEL inline __m128i horizontal_sums(const __m512i rows[ROWS_TOGETHER]) {
    const __m512i first = _mm512_add_epi32(_mm512_unpacklo_epi32(rows[0], rows[1]),
                                           _mm512_unpackhi_epi32(rows[0], rows[1]));
    const __m512i last = _mm512_add_epi32(_mm512_unpacklo_epi32(rows[2], rows[3]),
                                          _mm512_unpackhi_epi32(rows[2], rows[3]));
    const __m512i quarters =
        _mm512_add_epi32(_mm512_unpacklo_epi64(first, last), _mm512_unpackhi_epi64(first, last));
    const __m256i halves = _mm256_add_epi32(_mm512_castsi512_si256(quarters),
                                            _mm512_extracti64x4_epi64(quarters, 1));
    return _mm_add_epi32(_mm256_castsi256_si128(halves), _mm256_extracti128_si256(halves, 1));
}

// Of each row, its minimums multiplied with the sums of a token's quants, and added.
template <typename Block>
KERNEL inline __m128i minimum_products(const RowScales<Block> & rows,
                                       const SuperActivations<Block> & activations) {
    __m512i sums = _mm512_setzero_si512();
    for (int i = 0; i < SUB_BLOCKS<Block> / 8; i++) {
        const __m512i others = _mm512_broadcast_i32x4(load_16(activations.sums + 4 * i));
        sums = _mm512_dpwssd_epi32(sums, rows.minimums[i], others);
    }
    sums = _mm512_add_epi32(sums, _mm512_shuffle_epi32(sums, _MM_PERM_BADC));
    sums = _mm512_add_epi32(sums, _mm512_shuffle_epi32(sums, _MM_PERM_CDAB));
    const __m512i firsts = _mm512_castsi128_si512(_mm_setr_epi32(0, 4, 8, 12));
    return _mm512_castsi512_si128(_mm512_permutexvar_epi32(firsts, sums));
}

// Adds to sums[t][r] the products of row r with token t; rows lie `stride` bytes apart from `first` on. Inlined, it changes
// what the compiler makes of the products with many tokens, which take longer then.
template <typename Block, int TOKENS>
KERNEL __attribute__((noinline)) void multiply_rows(const char * first, int64_t stride, int64_t blocks,
                                                    const SuperActivations<Block> * activations,
                                                    float * const * sums) {
    // So much further on memory is prefetched into the L2 cache, in the order in which it lies.
    constexpr int64_t PREFETCHED_ROWS = 4 * ROWS_TOGETHER;
    const char * next = first + PREFETCHED_ROWS * stride;
    __m128 in_registers[TOKENS];
    for (int t = 0; t < TOKENS; t++) {
        in_registers[t] = _mm_loadu_ps(sums[t]);
    }
    for (int64_t block = 0; block < blocks; block++, first += sizeof(Block), activations += TOKENS) {
        RowScales<Block> rows;
        unpack_scales(first, stride, rows);
        __m512i of_quants[TOKENS][ROWS_TOGETHER];
#pragma GCC unroll 4
        for (int r = 0; r < ROWS_TOGETHER; r++, next += sizeof(Block)) {
            for (size_t byte = 0; byte < sizeof(Block); byte += 64) {
                __builtin_prefetch(next + byte, 0, 2);
            }
            const RowBlock<Block> row(first + r * stride, rows.scales[r]);
            for (int t = 0; t < TOKENS; t++) {
                of_quants[t][r] = products(row, rows.scales[r], activations[t]);
            }
        }
        const SuperScales scales = load_super_scales<Block>(first, stride);
        for (int t = 0; t < TOKENS; t++) {
            // As in add_super_block().
            __m128 sum = _mm_mul_ps(_mm_cvtepi32_ps(horizontal_sums(of_quants[t])), scales.scale);
            if (Format<Block>::HAS_MINIMUM) {
                const __m128 minimums = _mm_cvtepi32_ps(minimum_products(rows, activations[t]));
                sum = _mm_fnmadd_ps(minimums, scales.minimum, sum);
            }
            in_registers[t] = _mm_fmadd_ps(sum, _mm_set1_ps(activations[t].scale), in_registers[t]);
        }
    }
    for (int t = 0; t < TOKENS; t++) {
        _mm_storeu_ps(sums[t], in_registers[t]);
    }
}

// See mul_mat_super_blocks.h.
template <typename Block, int PANELS>
KERNEL void multiply_panels_by_rows(const char * panel, int64_t stride, int64_t blocks,
                                    const SuperActivations<Block> * activations, int64_t tokens,
                                    Floats (*sums)[TILE_TOKENS]) {
    with_count<MOST_TOKENS_BY_ROWS>(tokens, [&](auto count) KERNEL {
        for (int64_t row = 0; row < PANELS * PANEL_ROWS; row += ROWS_TOGETHER) {
            float * of_rows[count];
            for (int t = 0; t < count; t++) {
                auto * of_panel = reinterpret_cast<float *>(&sums[row / PANEL_ROWS][t]);
                of_rows[t] = of_panel + row % PANEL_ROWS;
            }
            multiply_rows<Block, count>(panel + row * stride, stride, blocks, activations, of_rows);
        }
    });
}

}  // namespace
