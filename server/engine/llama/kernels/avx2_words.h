// Reads 32-bit words of as many rows of weights as a register of AVX2 has lanes.
#pragma once

#include <cstring>

#include "avx2_vector.h"
#include "x86_quants.h"

namespace {

// So many panels, those of blocks of 32 apart, and tokens are multiplied together: their sums stay in registers.
constexpr int PANELS_TOGETHER = 2, TOKENS_TOGETHER = 4, BLOCK_PANELS_TOGETHER = 2;

// Up to so many tokens are multiplied row by row (avx2_rows.h) with super-blocks, those of codebooks apart. With others, panels
// are as fast.
constexpr int SUPER_TOKENS_BY_ROWS = 2, CODEBOOK_TOKENS_BY_ROWS = 0, BLOCK_TOKENS_BY_ROWS = 0;

// Reads `COUNT` words of each row; rows lie `stride` bytes apart from `first` on. Lane r of words[i] becomes
// word i of row r. Reads nothing else: memory after the last row may be unmapped.
template <int COUNT>
KERNEL inline void load_words(const char * first, int64_t stride, Words * words) {
    static_assert(COUNT % 4 == 0);
    for (int start = 0; start < COUNT; start += 4, first += 16, words += 4) {
        __m256i rows[4];
        for (int i = 0; i < 4; i++) {
            const char * row = first + i * stride;
            const __m128i lower = _mm_loadu_si128(reinterpret_cast<const __m128i *>(row));
            const __m128i upper =
                _mm_loadu_si128(reinterpret_cast<const __m128i *>(row + 4 * stride));
            rows[i] = _mm256_inserti128_si256(_mm256_castsi128_si256(lower), upper, 1);
        }
        const __m256i low01 = _mm256_unpacklo_epi32(rows[0], rows[1]);
        const __m256i high01 = _mm256_unpackhi_epi32(rows[0], rows[1]);
        const __m256i low23 = _mm256_unpacklo_epi32(rows[2], rows[3]);
        const __m256i high23 = _mm256_unpackhi_epi32(rows[2], rows[3]);
        words[0] = Words(_mm256_unpacklo_epi64(low01, low23));
        words[1] = Words(_mm256_unpackhi_epi64(low01, low23));
        words[2] = Words(_mm256_unpacklo_epi64(high01, high23));
        words[3] = Words(_mm256_unpackhi_epi64(high01, high23));
    }
}

template <>
KERNEL inline void load_words<1>(const char * first, int64_t stride, Words * words) {
    uint32_t row_words[LANES];
    for (int row = 0; row < LANES; row++) {
        memcpy(&row_words[row], first + row * stride, sizeof row_words[row]);
    }
    *words = Words{row_words[0], row_words[1], row_words[2], row_words[3],
                   row_words[4], row_words[5], row_words[6], row_words[7]};
}

// The same for quants of super-blocks.
KERNEL inline void load_quants(const char * first, int64_t stride, Words words[8]) {
    load_words<8>(first, stride, words);
}

// The lower 16 bits of each word, a half-precision number, as a float.
KERNEL inline Floats half_to_float(Words words) {
    const __m256i halves = __m256i(words & 0xffff);
    return _mm256_cvtph_ps(_mm_packus_epi32(_mm256_castsi256_si128(halves),
                                            _mm256_extracti128_si256(halves, 1)));
}

// Adds 16 to each quant whose fifth bit is set. Bit i of a lane belongs to quant i of its row.
KERNEL inline void add_fifth_bits(Words fifth_bits, Words quants[8]) {
    const __m256i sixteen = _mm256_set1_epi8(16);
    __m256i byte_indices = _mm256_broadcastsi128_si256(
        _mm_setr_epi32(0x00000000, 0x04040404, 0x08080808, 0x0c0c0c0c));
    for (int i = 0; i < 8; i++) {
        const __m256i bit = _mm256_set1_epi32(int(i % 2 == 0 ? 0x08040201 : 0x80402010));
        const __m256i byte = _mm256_shuffle_epi8(__m256i(fifth_bits), byte_indices);
        const __m256i is_set = _mm256_cmpeq_epi8(_mm256_and_si256(byte, bit), bit);
        quants[i] |= Words(_mm256_and_si256(is_set, sixteen));
        byte_indices = _mm256_add_epi8(byte_indices, _mm256_set1_epi8(i % 2));
    }
}

// The scale of a sub-block, twice in each lane as 16 bits.
using SubBlockScale = Words;

KERNEL inline SubBlockScale sub_block_scale(SignedWords scale) {
    return Words(_mm256_blend_epi16(__m256i(scale), __m256i(scale << 16), 0xaa));
}

// What makes the weights of codebooks unsigned, as dot products of bytes take them. Sums with those of IQ4 would not fit.
constexpr int IQ4_OFFSET = 0, MXFP4_OFFSET = 12;

// Signed quants are multiplied in 16 bits. The instruction for bytes takes unsigned ones, so that signs have to be moved, and
// its sums of two products leave no room for others.
constexpr bool WIDENS_SIGNED_QUANTS = true;

// The bytes of each word in 16 bits: wide[i] has the first and the third of word i, wide[COUNT + i] the others.
template <int COUNT>
KERNEL inline void widen(const Words words[COUNT], Words wide[2 * COUNT]) {
    for (int i = 0; i < COUNT; i++) {
        const __m256i bytes = __m256i(words[i]);
        wide[i] = Words(_mm256_srai_epi16(_mm256_slli_epi16(bytes, 8), 8));
        wide[COUNT + i] = Words(_mm256_srai_epi16(bytes, 8));
    }
}

// Stores the signed quants of two sub-blocks of 32.
KERNEL inline void store_signed_quants(const Words quants[16], Words * stored) {
    widen<8>(quants, stored);
    widen<8>(quants + 8, stored + 16);
}

// widen() for 32 quants of activations.
KERNEL inline void widen_bytes(const int32_t bytes[8], int32_t wide[16]) {
    Words words, both[2];
    memcpy(&words, bytes, sizeof words);
    widen<1>(&words, both);
    memcpy(wide, both, sizeof both);
}

// What a dot product starts from, so that quants count from `offset` on: maddubs adds the products of the
// lower and of the upper two bytes of each word in 16 bits.
inline int32_t start_of_dot_product(int offset, int lower_sum, int upper_sum) {
    return int32_t(uint32_t(-offset * upper_sum) << 16 | uint16_t(-offset * lower_sum));
}

// Quantizes 256 activations for a super-block of wide quants.
KERNEL inline void quantize_wide(const float * numbers, float inverse_scale, int32_t wide[128]) {
    for (int i = 0; i < 256; i += 32) {
        int32_t bytes[8];
        quantize_to_int8(numbers + i, inverse_scale, bytes);
        widen_bytes(bytes, wide + i / 2);
    }
}

}  // namespace
