// Products of super-blocks with few tokens, row by row, in registers of AVX2 (x86_rows.h).
#pragma once

#include "avx2_row_blocks.h"
#include "avx2_weights.h"

namespace {

// What products with a token start from, so that quants count from an offset on; to be added are all lanes.
template <typename Block>
KERNEL inline __m256i start_of_products(const RowScales & row, const SuperActivations<Block> & activations) {
    if constexpr (HAS_OFFSET<Block>) {
        static_assert(SUB_BLOCKS<Block> == 16);
        const __m256i first = load_32(activations.sums), last = load_32(activations.sums + 8);
        // Unpacking works within each half of a register: scales 0 to 3 and 8 to 11 come before the others, each twice.
        const __m256i lower = _mm256_permute2x128_si256(first, last, 0x20);
        const __m256i upper = _mm256_permute2x128_si256(first, last, 0x31);
        return _mm256_add_epi32(_mm256_madd_epi16(_mm256_unpacklo_epi16(row.scales, row.scales), lower),
                                _mm256_madd_epi16(_mm256_unpackhi_epi16(row.scales, row.scales), upper));
    } else {
        return _mm256_setzero_si256();
    }
}

// Adds to sums[t] the products of register INDEX of a row's quants, and of those that follow, with token t.
template <typename Block, int TOKENS, int INDEX = 0>
KERNEL __attribute__((always_inline)) inline void add_row_products(const Block & block, const RowScales & row,
                                                                   const SuperActivations<Block> * activations,
                                                                   __m256i (&sums)[TOKENS]) {
    if constexpr (INDEX < ROW_REGISTERS) {
        const __m256i quants = unpack_quants<INDEX>(block), scales = scales_of_quants<Block, INDEX>(row);
        for (int t = 0; t < TOKENS; t++) {
            const __m256i products = _mm256_maddubs_epi16(quants, load_32(activations[t].quants + 8 * INDEX));
            sums[t] = _mm256_add_epi32(sums[t], _mm256_madd_epi16(products, scales));
            keep_order(sums[t]);
        }
        add_row_products<Block, TOKENS, INDEX + 1>(block, row, activations, sums);
    }
}

// Lane i of the result is the sum of the lanes of rows[i].
KERNEL inline __m128i horizontal_sums(const __m256i rows[ROWS_TOGETHER]) {
    const __m256i first = _mm256_add_epi32(_mm256_unpacklo_epi32(rows[0], rows[1]), _mm256_unpackhi_epi32(rows[0], rows[1]));
    const __m256i last = _mm256_add_epi32(_mm256_unpacklo_epi32(rows[2], rows[3]), _mm256_unpackhi_epi32(rows[2], rows[3]));
    const __m256i halves = _mm256_add_epi32(_mm256_unpacklo_epi64(first, last), _mm256_unpackhi_epi64(first, last));
    return _mm_add_epi32(_mm256_castsi256_si128(halves), _mm256_extracti128_si256(halves, 1));
}

// A row's minimums multiplied with the sums of a token's quants; to be added are all lanes.
template <typename Block>
KERNEL inline __m256i minimum_products(const RowScales & row, const SuperActivations<Block> & activations) {
    if constexpr (SUB_BLOCKS<Block> == 8) {
        const __m128i minimums = _mm256_castsi256_si128(row.minimums);
        return _mm256_zextsi128_si256(_mm_madd_epi16(minimums, load_16(activations.sums)));
    } else {
        return _mm256_madd_epi16(row.minimums, load_32(activations.sums));
    }
}

// See x86_rows.h.
template <typename Block, int TOKENS>
KERNEL __attribute__((noinline)) void multiply_rows(const char * first, int64_t stride, int64_t blocks,
                                                    const SuperActivations<Block> * activations, __m128 * results) {
    constexpr bool HAS_MINIMUM = Format<Block>::HAS_MINIMUM;
    __m128 in_registers[TOKENS];
    for (int t = 0; t < TOKENS; t++) {
        in_registers[t] = _mm_setzero_ps();
    }
    for (int64_t i = 0; i < blocks; i++, first += sizeof(Block), activations += TOKENS) {
        __m256i of_quants[TOKENS][ROWS_TOGETHER], of_minimums[TOKENS][ROWS_TOGETHER];
#pragma GCC unroll 4
        for (int r = 0; r < ROWS_TOGETHER; r++) {
            const Block & block = *reinterpret_cast<const Block *>(first + r * stride);
            prefetch_stream<Block>(first + r * stride);
            const RowScales row = unpack_scales(block);
            __m256i sums[TOKENS];
            for (int t = 0; t < TOKENS; t++) {
                sums[t] = start_of_products(row, activations[t]);
            }
            add_row_products<Block, TOKENS>(block, row, activations, sums);
            for (int t = 0; t < TOKENS; t++) {
                of_quants[t][r] = sums[t];
                of_minimums[t][r] = HAS_MINIMUM ? minimum_products(row, activations[t]) : _mm256_setzero_si256();
            }
        }
        const SuperScales scales = load_super_scales<Block>(first, stride);
        for (int t = 0; t < TOKENS; t++) {
            const __m128i products = horizontal_sums(of_quants[t]), minimums = horizontal_sums(of_minimums[t]);
            in_registers[t] = add_super_products(products, minimums, scales, activations[t], in_registers[t]);
        }
    }
    for (int t = 0; t < TOKENS; t++) {
        results[t] = in_registers[t];
    }
}

}  // namespace
