/* Products of super-blocks with few tokens, row by row, and the streams in which rows are read, also of blocks of 32: what is
 * the same with AVX2 (avx2_rows.h) and AVX-512 (avx512_rows.h).
 *
 * With more tokens a row of weights is in each lane: what is unpacked once serves all of them. That reads as many rows at a
 * time as a register has lanes, and transposes them. Here a few rows are read together (row_streams.h), and quants stay
 * beside each other. Sums of a super-block are integers there and here, and the floats that follow are computed in the same
 * order: results are the same to the bit.
 */
#pragma once

#include <cstddef>
#include <cstring>

#include "mul_mat_super_blocks.h"
#include "row_streams.h"

namespace {

// Rows that are read at the same time.
constexpr int ROWS_TOGETHER = 4;

KERNEL inline __m128i load_16(const void * bytes) {
    return _mm_loadu_si128(static_cast<const __m128i *>(bytes));
}

// Prefetches what follows in the stream of a row, of which COUNT blocks are computed now.
template <typename Block, int COUNT = 1>
KERNEL inline void prefetch_stream(const char * blocks) {
    for (size_t byte = 0; byte < COUNT * sizeof(Block); byte += 64) {
        __builtin_prefetch(blocks + PREFETCHED_BYTES + byte, 0, 2);
    }
}

// The scales and minimums of super-blocks, of a row in each lane.
struct SuperScales {
    __m128 scale, minimum;
};

template <typename Block>
KERNEL inline SuperScales load_super_scales(const char * first, int64_t stride) {
    const auto words = [&](size_t offset) KERNEL {
        uint32_t of_rows[ROWS_TOGETHER];
        for (int row = 0; row < ROWS_TOGETHER; row++) {
            memcpy(&of_rows[row], first + row * stride + offset, sizeof of_rows[row]);
        }
        return _mm_setr_epi32(of_rows[0], of_rows[1], of_rows[2], of_rows[3]);
    };
    // Of the lower or the upper half of each word.
    const auto lower = [](__m128i words) KERNEL {
        return _mm_cvtph_ps(_mm_packus_epi32(_mm_blend_epi16(words, _mm_setzero_si128(), 0xaa), words));
    };
    const auto upper = [](__m128i words) KERNEL { return _mm_cvtph_ps(_mm_packus_epi32(_mm_srli_epi32(words, 16), words)); };
    if constexpr (Format<Block>::HAS_MINIMUM) {
        const __m128i both = words(offsetof(Block, data));
        return {lower(both), upper(both)};
    } else {
        // Nothing is read before or after a block.
        constexpr bool IS_LAST = offsetof(Block, d) > 0;
        const __m128i word = words(IS_LAST ? sizeof(Block) - sizeof(uint32_t) : 0);
        return {IS_LAST ? upper(word) : lower(word), _mm_setzero_ps()};
    }
}

// Adds to `sum`, of a row in each lane, what the products of a super-block's quants and of its minimums with those of a token
// make, as products with more tokens are added.
template <typename Block>
KERNEL inline __m128 add_super_products(__m128i products, __m128i minimum_products, const SuperScales & scales,
                                        const SuperActivations<Block> & activations, __m128 sum) {
    __m128 result = _mm_mul_ps(_mm_cvtepi32_ps(products), scales.scale);
    if (Format<Block>::HAS_MINIMUM) {
        result = _mm_fnmadd_ps(_mm_cvtepi32_ps(minimum_products), scales.minimum, result);
    }
    return _mm_fmadd_ps(result, _mm_set1_ps(activations.scale), sum);
}

// Sets results[t] to the products of ROWS_TOGETHER rows with token t, a row in each lane; rows lie `stride` bytes apart from
// `first` on.
template <typename Block, int TOKENS>
KERNEL void multiply_rows(const char * first, int64_t stride, int64_t blocks,
                          const SuperActivations<Block> * activations, __m128 * results);

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
    multiply_streams<Block, MOST_SUPER_TOKENS_BY_ROWS<Block>>(matrix, row, end, activations, tokens, results);
}

}  // namespace
