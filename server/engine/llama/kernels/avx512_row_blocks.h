// Super-blocks of single rows in registers of AVX-512: quants stay beside each other as they lie. super_blocks.h says where
// formats have what.
#pragma once

#include <cstddef>
#include <cstring>

#include "avx512_words.h"
#include "x86_rows.h"

namespace {

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

// Lane i of each quarter of the result is the sum of that quarter's lanes of rows[i].
KERNEL inline __m512i sums_of_quarters(const __m512i rows[ROWS_TOGETHER]) {
    const __m512i first = _mm512_add_epi32(_mm512_unpacklo_epi32(rows[0], rows[1]),
                                           _mm512_unpackhi_epi32(rows[0], rows[1]));
    const __m512i last = _mm512_add_epi32(_mm512_unpacklo_epi32(rows[2], rows[3]),
                                          _mm512_unpackhi_epi32(rows[2], rows[3]));
    return _mm512_add_epi32(_mm512_unpacklo_epi64(first, last), _mm512_unpackhi_epi64(first, last));
}

// The bits of `mask` in each byte, once words are rotated to the right by `counts` bits.
KERNEL inline __m512i bits(__m512i words, __m512i counts, __m512i mask) {
    return _mm512_and_si512(_mm512_rorv_epi32(words, counts), mask);
}

KERNEL inline __m128i bits(__m128i words, __m128i counts, __m128i mask) {
    return _mm_and_si128(_mm_rorv_epi32(words, counts), mask);
}

// The words of the lower and of the upper half rotated to the right by so many bits.
KERNEL inline __m512i rotate(__m512i words, int lower, int upper) {
    const __m512i counts = _mm512_inserti64x4(_mm512_set1_epi32(lower), _mm256_set1_epi32(upper), 1);
    return _mm512_rorv_epi32(words, counts);
}

// The bits of `mask` in each byte of these.
KERNEL inline __m512i bits(__m512i words, int lower, int upper, int mask) {
    return _mm512_and_si512(rotate(words, lower, upper), _mm512_set1_epi8(char(mask)));
}

// The bits of `mask` in each byte of `words`, beside those of `others`.
KERNEL inline __m512i merge(__m512i words, int mask, __m512i others) {
    constexpr int WORDS_AND_MASK_OR_OTHERS = 0xEA;
    return _mm512_ternarylogic_epi32(words, _mm512_set1_epi8(char(mask)), others, WORDS_AND_MASK_OR_OTHERS);
}

// The lower nibbles of 64 bytes, then the upper.
KERNEL inline void unpack_nibbles(const uint8_t * bytes, __m512i quants[2]) {
    const __m512i both = load_64(bytes), nibbles = _mm512_set1_epi8(15);
    quants[0] = _mm512_and_si512(both, nibbles);
    quants[1] = _mm512_and_si512(_mm512_srli_epi16(both, 4), nibbles);
}

KERNEL inline void unpack_quants(const block_q4_K & block, __m512i quants[4]) {
    unpack_nibbles(block.qs, quants);
    unpack_nibbles(block.qs + 64, quants + 2);
}

KERNEL inline void unpack_quants(const block_q5_K & block, __m512i quants[4]) {
    const __m512i fifth_bits = load_32_twice(block.qh);
    unpack_nibbles(block.qs, quants);
    unpack_nibbles(block.qs + 64, quants + 2);
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        const int first = 4 * (i / 2) + i % 2 - 4;
        quants[i] = merge(rotate(fifth_bits, first, first + 2), 16, quants[i]);
    }
}

KERNEL inline void unpack_quants(const block_q6_K & block, __m512i quants[4]) {
    unpack_nibbles(block.ql, quants);
    unpack_nibbles(block.ql + 64, quants + 2);
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        const int shift = 4 * (i % 2) - 4;
        const __m512i upper = load_32_twice(block.qh + 32 * (i / 2));
        quants[i] = merge(rotate(upper, shift, shift + 2), 0x30, quants[i]);
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
    const Words codes = Words(_mm512_broadcast_i32x4(load_16(CODEBOOK<block_iq4_xs>.quants)));
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

// Registers of unpack_quants() for Q4_K and Q5_K have two sub-blocks that come first or last in their pairs, as lower and
// upper nibbles lie; those of other formats have neighbours.
template <typename Block>
constexpr bool HAS_PAIRS = std::is_same_v<Block, block_q4_K> || std::is_same_v<Block, block_q5_K>;

// The first of the 16 quants in a quarter of such a register.
template <typename Block>
constexpr int first_quant(int index, int quarter) {
    return HAS_PAIRS<Block> ? 128 * (index / 2) + 32 * (index % 2) + 64 * (quarter / 2) + 16 * (quarter % 2)
                            : 64 * index + 16 * quarter;
}

// The quants of activations in the same order.
template <typename Block>
KERNEL inline void load_quants(const SuperActivations<Block> & activations, __m512i quants[4]) {
    for (int i = 0; i < 4; i++) {
        quants[i] = load_64(activations.quants + LANES * i);
    }
    for (int i = 0; HAS_PAIRS<Block> && i < 4; i += 2) {
        const __m512i lower = quants[i], upper = quants[i + 1];
        quants[i] = _mm512_shuffle_i64x2(lower, upper, _MM_SHUFFLE(1, 0, 1, 0));
        quants[i + 1] = _mm512_shuffle_i64x2(lower, upper, _MM_SHUFFLE(3, 2, 3, 2));
    }
}

// Which sub-block each lane of a register of dot products belongs to, and each word of two such registers once packed into
// one.
template <typename Block>
struct SubBlocksOfDots {
    alignas(64) uint32_t of_lanes[4][16] = {};
    alignas(64) uint16_t of_words[2][32] = {};

    constexpr SubBlocksOfDots() {
        for (int index = 0; index < 4; index++) {
            for (int lane = 0; lane < 16; lane++) {
                const int quarter = lane / 4;
                const int sub_block = first_quant<Block>(index, quarter) / Format<Block>::SUB_BLOCK_SIZE;
                of_lanes[index][lane] = sub_block;
                of_words[index / 2][8 * quarter + 4 * (index % 2) + lane % 4] = sub_block;
            }
        }
    }
};

template <typename Block>
constexpr SubBlocksOfDots<Block> SUB_BLOCKS_OF_DOTS;

// A super-block of one row, with a scale for each dot product of four quants. Such a product fits into 16 bits, unless the
// format has a codebook; then scales[i] are those of quants[i], with 32 bits.
template <typename Block>
struct RowBlock {
    static constexpr int REGISTERS_OF_SCALES = Format<Block>::HAS_CODEBOOK ? 4 : 2;
    __m512i quants[4], scales[REGISTERS_OF_SCALES];

    KERNEL RowBlock(const char * block, __m256i scales_of_sub_blocks) {
        constexpr const SubBlocksOfDots<Block> & SUB_BLOCKS = SUB_BLOCKS_OF_DOTS<Block>;
        unpack_quants(*reinterpret_cast<const Block *>(block), quants);
        for (int i = 0; i < REGISTERS_OF_SCALES; i++) {
            scales[i] = Format<Block>::HAS_CODEBOOK
                            ? _mm512_permutexvar_epi32(load_64(SUB_BLOCKS.of_lanes[i]),
                                                       _mm512_cvtepi16_epi32(scales_of_sub_blocks))
                            : _mm512_permutexvar_epi16(load_64(SUB_BLOCKS.of_words[i]),
                                                       _mm512_castsi256_si512(scales_of_sub_blocks));
        }
    }
};

}  // namespace
