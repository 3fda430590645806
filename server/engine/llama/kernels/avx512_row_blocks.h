// Super-blocks of single rows in registers of AVX-512: neighbouring quants stay beside each other. super_blocks.h says
// where formats have what.
#pragma once

#include <cstddef>
#include <cstring>

#include "avx512_words.h"
#include "super_blocks.h"

namespace {

// Rows that are read at the same time.
constexpr int ROWS_TOGETHER = 4;

KERNEL inline __m128i load_16(const void * bytes) {
    return _mm_loadu_si128(static_cast<const __m128i *>(bytes));
}

// 32 bytes, twice.
KERNEL inline __m512i load_32_twice(const void * bytes) {
    return _mm512_broadcast_i64x4(_mm256_loadu_si256(static_cast<const __m256i *>(bytes)));
}

KERNEL inline __m512i load_64(const void * bytes) { return _mm512_loadu_si512(bytes); }

// 16 bytes of each of the rows, `stride` bytes apart.
KERNEL inline __m512i load_16_of_rows(const void * first, int64_t stride) {
    const auto row = [&](int64_t index) KERNEL {
        return load_16(static_cast<const char *>(first) + index * stride);
    };
    const __m256i lower = _mm256_inserti128_si256(_mm256_castsi128_si256(row(0)), row(1), 1);
    const __m256i upper = _mm256_inserti128_si256(_mm256_castsi128_si256(row(2)), row(3), 1);
    return _mm512_inserti64x4(_mm512_castsi256_si512(lower), upper, 1);
}

// The bits of `mask` in each byte, once words are rotated to the right by `counts` bits.
KERNEL inline __m512i bits(__m512i words, __m512i counts, __m512i mask) {
    return _mm512_and_si512(_mm512_rorv_epi32(words, counts), mask);
}

KERNEL inline __m128i bits(__m128i words, __m128i counts, __m128i mask) {
    return _mm_and_si128(_mm_rorv_epi32(words, counts), mask);
}

// The same with counts for the words of the lower and of the upper half.
KERNEL inline __m512i bits(__m512i words, int lower, int upper, int mask) {
    const __m512i counts = _mm512_inserti64x4(_mm512_set1_epi32(lower), _mm256_set1_epi32(upper), 1);
    return bits(words, counts, _mm512_set1_epi8(char(mask)));
}

// The quants of a super-block, 64 neighbours in each register.
KERNEL inline void unpack_quants(const block_q4_K & block, __m512i quants[4]) {
    for (int i = 0; i < 4; i++) {
        quants[i] = bits(load_32_twice(block.qs + 32 * i), 0, 4, 15);
    }
}

KERNEL inline void unpack_quants(const block_q5_K & block, __m512i quants[4]) {
    const __m512i fifth_bits = load_32_twice(block.qh);
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        const __m512i upper = bits(fifth_bits, 2 * i - 4, 2 * i - 3, 16);
        quants[i] = _mm512_or_si512(bits(load_32_twice(block.qs + 32 * i), 0, 4, 15), upper);
    }
}

KERNEL inline void unpack_quants(const block_q6_K & block, __m512i quants[4]) {
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        const int half = i / 2, shift = 4 * (i % 2);
        const __m512i lower = bits(load_64(block.ql + 64 * half), shift, shift, 15);
        const __m512i upper = bits(load_32_twice(block.qh + 32 * half), shift - 4, shift - 2, 0x30);
        quants[i] = _mm512_or_si512(lower, upper);
    }
}

KERNEL inline void unpack_quants(const block_q2_K & block, __m512i quants[4]) {
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        const int half = i / 2, shift = 4 * (i % 2);
        quants[i] = bits(load_32_twice(block.qs + 32 * half), shift, shift + 2, 3);
    }
}

KERNEL inline void unpack_quants(const block_q3_K & block, __m512i quants[4]) {
    const __m512i third_bits = load_32_twice(block.hmask);
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        const int half = i / 2, shift = 4 * (i % 2);
        const __m512i lower = bits(load_32_twice(block.qs + 32 * half), shift, shift + 2, 3);
        quants[i] = _mm512_or_si512(lower, bits(third_bits, 2 * i - 2, 2 * i - 1, 4));
    }
}

KERNEL inline void unpack_quants(const block_iq4_xs & block, __m512i quants[4]) {
    const Words codes = codebook_quants(Words(_mm512_broadcast_i32x4(load_16(IQ4_CODEBOOK))));
    // 16 bytes of each of two sub-blocks, twice: their lower halves come before their upper halves.
    const __m512i twice = _mm512_setr_epi64(0, 1, 0, 1, 2, 3, 2, 3);
    const __m512i counts = _mm512_setr_epi32(0, 0, 0, 0, 4, 4, 4, 4, 0, 0, 0, 0, 4, 4, 4, 4);
    for (int i = 0; i < 4; i++) {
        const __m512i bytes = _mm512_permutexvar_epi64(twice, load_32_twice(block.qs + 32 * i));
        quants[i] = _mm512_shuffle_epi8(__m512i(codes), bits(bytes, counts, _mm512_set1_epi8(15)));
    }
}

// The scales of sub-blocks, 16 bits for each.
KERNEL inline __m256i unpack_scales(const block_q6_K & block) {
    return _mm256_cvtepi8_epi16(load_16(block.scales));
}

KERNEL inline __m256i unpack_scales(const block_q3_K & block) {
    // Three words of scales, and the word before them.
    const __m128i words = load_16(block.scales - sizeof(uint32_t));
    const __m128i lower = bits(_mm_shuffle_epi32(words, _MM_SHUFFLE(2, 1, 2, 1)),
                               _mm_setr_epi32(0, 0, 4, 4), _mm_set1_epi8(15));
    const __m128i upper = bits(_mm_shuffle_epi32(words, _MM_SHUFFLE(3, 3, 3, 3)),
                               _mm_setr_epi32(-4, -2, 0, 2), _mm_set1_epi8(0x30));
    return _mm256_cvtepi8_epi16(_mm_sub_epi8(_mm_or_si128(lower, upper), _mm_set1_epi8(32)));
}

KERNEL inline __m256i unpack_scales(const block_iq4_xs & block) {
    uint32_t lower;
    memcpy(&lower, block.scales_l, sizeof lower);
    const __m256i two_each = _mm256_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14);
    const __m256i four_each = _mm256_slli_epi32(two_each, 1);
    const __m256i lower_bits =
        _mm256_and_si256(_mm256_srlv_epi32(_mm256_set1_epi32(int(lower)), four_each),
                         _mm256_set1_epi32(15));
    const __m256i upper_bits =
        _mm256_and_si256(_mm256_srlv_epi32(_mm256_set1_epi32(block.scales_h << 4), two_each),
                         _mm256_set1_epi32(0x30));
    const __m256i scales =
        _mm256_sub_epi32(_mm256_or_si256(lower_bits, upper_bits), _mm256_set1_epi32(32));
    return _mm256_castsi128_si256(_mm256_cvtepi32_epi16(scales));
}

// The scales of sub-blocks of each row, and the minimums of formats with them: 16 bits for each. A quarter of a register
// of minimums has eight of a row.
template <typename Block>
struct RowScales {
    __m256i scales[ROWS_TOGETHER];
    __m512i minimums[SUB_BLOCKS<Block> / 8];
};

template <typename Block>
KERNEL inline void unpack_scales(const char * first, int64_t stride, RowScales<Block> & rows) {
    for (int row = 0; row < ROWS_TOGETHER; row++) {
        rows.scales[row] = unpack_scales(*reinterpret_cast<const Block *>(first + row * stride));
    }
}

// A quarter of `bytes` has the scales of a row.
template <typename Block>
KERNEL inline void set_scales(__m512i bytes, RowScales<Block> & rows) {
    alignas(64) uint8_t of_rows[ROWS_TOGETHER][16];
    _mm512_store_si512(of_rows, bytes);
    for (int row = 0; row < ROWS_TOGETHER; row++) {
        rows.scales[row] = _mm256_cvtepu8_epi16(load_16(of_rows[row]));
    }
}

// As unpack_scales_and_minimums() has them.
template <typename Block>
KERNEL inline void unpack_scales_and_minimums(const char * first, int64_t stride, RowScales<Block> & rows) {
    const auto words = [](int a, int b, int c, int d) KERNEL {
        return _mm512_broadcast_i32x4(_mm_setr_epi32(a, b, c, d));
    };
    constexpr int SIX_BITS = in_every_byte(63), UPPER_BITS = in_every_byte(0x30);
    const __m512i heads = load_16_of_rows(first, stride);
    // Of each row: scales 0 to 3 and 4 to 7, then the minimums.
    const __m512i lower = bits(_mm512_shuffle_epi32(heads, _MM_PERM_DCDB), words(0, 0, 0, 4),
                               words(SIX_BITS, NIBBLES, SIX_BITS, NIBBLES));
    const __m512i upper = bits(_mm512_shuffle_epi32(heads, _MM_PERM_CCBB), _mm512_set1_epi32(2),
                               words(0, UPPER_BITS, 0, UPPER_BITS));
    const __m512i bytes = _mm512_or_si512(lower, upper);
    set_scales(bytes, rows);
    rows.minimums[0] = _mm512_unpackhi_epi8(bytes, _mm512_setzero_si512());
}

KERNEL inline void unpack_scales(const char * first, int64_t stride, RowScales<block_q4_K> & rows) {
    unpack_scales_and_minimums(first, stride, rows);
}

KERNEL inline void unpack_scales(const char * first, int64_t stride, RowScales<block_q5_K> & rows) {
    unpack_scales_and_minimums(first, stride, rows);
}

KERNEL inline void unpack_scales(const char * first, int64_t stride, RowScales<block_q2_K> & rows) {
    const __m512i packed = load_16_of_rows(first + offsetof(block_q2_K, scales), stride);
    const __m512i nibbles = _mm512_set1_epi32(NIBBLES);
    const __m512i minimums = _mm512_and_si512(_mm512_srli_epi32(packed, 4), nibbles);
    set_scales(_mm512_and_si512(packed, nibbles), rows);
    rows.minimums[0] = _mm512_unpacklo_epi8(minimums, _mm512_setzero_si512());
    rows.minimums[1] = _mm512_unpackhi_epi8(minimums, _mm512_setzero_si512());
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
    const auto to_floats = [](__m128i words) KERNEL {
        return _mm_cvtph_ps(_mm_cvtepi32_epi16(words));
    };
    if constexpr (Format<Block>::HAS_MINIMUM) {
        const __m128i both = words(offsetof(Block, data));
        return {to_floats(both), to_floats(_mm_srli_epi32(both, 16))};
    } else {
        // Nothing is read before or after a block.
        constexpr bool IS_LAST = offsetof(Block, d) > 0;
        const __m128i word = words(IS_LAST ? sizeof(Block) - sizeof(uint32_t) : 0);
        return {to_floats(IS_LAST ? _mm_srli_epi32(word, 16) : word), _mm_setzero_ps()};
    }
}

// Which sub-block each pair of quants belongs to.
template <typename Block>
struct SubBlocksOfPairs {
    alignas(64) uint16_t indices[4][32] = {};

    constexpr SubBlocksOfPairs() {
        for (int pair = 0; pair < SUPER_BLOCK_SIZE / 2; pair++) {
            indices[pair / 32][pair % 32] = 2 * pair / Format<Block>::SUB_BLOCK_SIZE;
        }
    }
};

template <typename Block>
constexpr SubBlocksOfPairs<Block> SUB_BLOCKS_OF_PAIRS;

// A super-block of one row, with a scale for each pair of quants, or with a codebook, since two products of its numbers do
// not fit into 16 bits, for each four.
template <typename Block>
struct RowBlock {
    __m512i quants[4], scales[4];

    KERNEL RowBlock(const char * block, __m256i scales_of_sub_blocks) {
        unpack_quants(*reinterpret_cast<const Block *>(block), quants);
        for (int i = 0; i < 4; i++) {
            const __m512i indices = load_64(SUB_BLOCKS_OF_PAIRS<Block>.indices[i]);
            scales[i] = Format<Block>::HAS_CODEBOOK
                            ? _mm512_permutexvar_epi32(indices, _mm512_cvtepi16_epi32(scales_of_sub_blocks))
                            : _mm512_permutexvar_epi16(indices, _mm512_castsi256_si512(scales_of_sub_blocks));
        }
    }
};

}  // namespace
