// Products of super-blocks with few tokens, row by row, in registers of AVX-512 (x86_rows.h).
#pragma once

#include "avx512_block_rows.h"
#include "avx512_row_blocks.h"

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

// See x86_rows.h. Inlined, it changes what the compiler makes of the products with many tokens, which take longer then.
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
            prefetch_stream<Block>(block_of_row);
            const RowBlock<Block> row(block_of_row, rows.scales[r]);
            for (int t = 0; t < TOKENS; t++) {
                of_quants[t][r] = products(row, rows.scales[r], activations[t], quants[t]);
            }
        }
        const SuperScales scales = load_super_scales<Block>(first, stride);
        for (int t = 0; t < TOKENS; t++) {
            const __m128i minimums =
                Format<Block>::HAS_MINIMUM ? minimum_products(rows, activations[t]) : _mm_setzero_si128();
            in_registers[t] =
                add_super_products(horizontal_sums(of_quants[t]), minimums, scales, activations[t], in_registers[t]);
        }
    }
    for (int t = 0; t < TOKENS; t++) {
        results[t] = in_registers[t];
    }
}

// See mul_mat_blocks.h.
template <typename Block>
KERNEL void multiply_by_rows(const Matrix & matrix, int64_t row, int64_t end,
                             const ActivationBlock * activations, int64_t tokens, float * const * results) {
    multiply_streams<Block, BLOCK_TOKENS_BY_ROWS>(matrix, row, end, activations, tokens, results);
}

}  // namespace
