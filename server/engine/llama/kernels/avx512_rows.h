/* Products of super-blocks with one or two tokens, row by row, in registers of AVX-512, and the streams in which rows are read,
 * also of blocks of 32 (avx512_block_rows.h).
 *
 * With more tokens a row of weights is in each lane (avx512_super_blocks.h): what is unpacked once serves all of them. That
 * reads 16 rows at a time and transposes them. Here a few rows are read together (row_streams.h), and quants stay beside
 * each other. Sums of a super-block are integers there and here, and the floats that follow are computed in the same
 * order: results are the same to the bit.
 */
#pragma once

#include "avx512_block_rows.h"
#include "avx512_row_blocks.h"
#include "mul_mat_super_blocks.h"
#include "row_streams.h"

namespace {

// The products of a super-block with that of a token, whose quants are `others`; to be added are all lanes.
template <typename Block>
KERNEL inline __m512i products(const RowBlock<Block> & row, __m256i scales_of_sub_blocks,
                               const SuperActivations<Block> & activations, const __m512i others[4]) {
    __m512i sum = _mm512_setzero_si512();
    if (HAS_OFFSET<Block>) {
        const __m512i starts = _mm512_maskz_loadu_epi32(__mmask16((1u << SUB_BLOCKS<Block>) - 1),
                                                        activations.sums);
        sum = _mm512_mullo_epi32(_mm512_cvtepi16_epi32(scales_of_sub_blocks), starts);
    }
    const auto dots = [&](int i) KERNEL {
        return _mm512_dpbusd_epi32(_mm512_setzero_si512(), row.quants[i], others[i]);
    };
    for (int i = 0; i < RowBlock<Block>::REGISTERS_OF_SCALES; i++) {
        if (Format<Block>::HAS_CODEBOOK) {
            sum = _mm512_add_epi32(sum, _mm512_mullo_epi32(dots(i), row.scales[i]));
        } else {
            const __m512i both = _mm512_packs_epi32(dots(2 * i), dots(2 * i + 1));
            sum = _mm512_dpwssd_epi32(sum, both, row.scales[i]);
        }
    }
    return sum;
}

// Lane i of the result is the sum of the lanes of rows[i].
KERNEL inline __m128i horizontal_sums(const __m512i rows[ROWS_TOGETHER]) {
    const __m512i quarters = sums_of_quarters(rows);
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

// Sets results[t][r] to the product of row r with token t; rows lie `stride` bytes apart from `first` on. Inlined, it
// changes what the compiler makes of the products with many tokens, which take longer then.
template <typename Block, int TOKENS>
KERNEL __attribute__((noinline)) void multiply_rows(const char * first, int64_t stride, int64_t blocks,
                                                    const SuperActivations<Block> * activations,
                                                    __m128 * results) {
    __m128 in_registers[TOKENS];
    for (int t = 0; t < TOKENS; t++) {
        in_registers[t] = _mm_setzero_ps();
    }
    for (int64_t block = 0; block < blocks; block++, first += sizeof(Block), activations += TOKENS) {
        RowScales<Block> rows;
        unpack_scales(first, stride, rows);
        __m512i of_quants[TOKENS][ROWS_TOGETHER], quants[TOKENS][4];
        for (int t = 0; t < TOKENS; t++) {
            load_quants(activations[t], quants[t]);
        }
#pragma GCC unroll 4
        for (int r = 0; r < ROWS_TOGETHER; r++) {
            const char * block_of_row = first + r * stride;
            for (size_t byte = 0; byte < sizeof(Block); byte += 64) {
                __builtin_prefetch(block_of_row + PREFETCHED_BYTES + byte, 0, 2);
            }
            const RowBlock<Block> row(block_of_row, rows.scales[r]);
            for (int t = 0; t < TOKENS; t++) {
                of_quants[t][r] = products(row, rows.scales[r], activations[t], quants[t]);
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
        results[t] = in_registers[t];
    }
}

// Multiplies rows `row` up to `end` with at most MOST tokens.
template <typename Block, int MOST, typename Activations>
KERNEL void multiply_streams(const Matrix & matrix, int64_t row, int64_t end, const Activations * activations,
                             int64_t tokens, float * const * results) {
    with_count<MOST>(tokens, [&](auto count) KERNEL {
        const auto multiply = [&](int64_t first, int64_t, int64_t distance, int64_t needless) KERNEL {
            __m128 products[count];
            multiply_rows<Block, count>(matrix.data + first * matrix.stride, distance * matrix.stride,
                                        matrix.blocks, activations, products);
            for (int t = 0; t < count; t++) {
                for (int64_t r = needless; r < ROWS_TOGETHER; r++) {
                    results[t][first + r * distance] = products[t][r];
                }
            }
        };
        for_streams<ROWS_TOGETHER>(row, end, 1, multiply);
    });
}

// See mul_mat_super_blocks.h.
template <typename Block>
KERNEL void multiply_by_rows(const Matrix & matrix, int64_t row, int64_t end,
                             const SuperActivations<Block> * activations, int64_t tokens,
                             float * const * results) {
    multiply_streams<Block, SUPER_TOKENS_BY_ROWS>(matrix, row, end, activations, tokens, results);
}

// See mul_mat_blocks.h.
template <typename Block>
KERNEL void multiply_by_rows(const Matrix & matrix, int64_t row, int64_t end,
                             const ActivationBlock * activations, int64_t tokens, float * const * results) {
    multiply_streams<Block, BLOCK_TOKENS_BY_ROWS>(matrix, row, end, activations, tokens, results);
}

}  // namespace
