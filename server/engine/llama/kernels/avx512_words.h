// Reads 32-bit words of as many rows of weights as a register of AVX-512 has lanes.
#pragma once

#include <cstring>

#include "avx512_vector.h"
#include "x86_quants.h"

namespace {

// So many panels, those of blocks of 32 apart, and tokens are multiplied together: their sums stay in registers.
constexpr int PANELS_TOGETHER = 2, TOKENS_TOGETHER = 6, BLOCK_PANELS_TOGETHER = 1;

// Up to so many tokens are multiplied row by row (avx512_rows.h): with super-blocks, those of codebooks apart, with these, and
// with blocks of 32. With more, panels are faster in some formats.
constexpr int SUPER_TOKENS_BY_ROWS = 3, CODEBOOK_TOKENS_BY_ROWS = 2, BLOCK_TOKENS_BY_ROWS = 1;

// Reads `BYTES` of each row, at most 32; rows lie `stride` bytes apart from `first` on. Lane r of words[i]
// becomes the 32-bit word i of row r. Reads nothing else: memory after the last row may be unmapped.
template <size_t BYTES>
KERNEL inline void transpose(const char * first, int64_t stride, __m512i words[8]) {
    constexpr __mmask16 in_row = (1u << BYTES / 2) - 1;
    __m512i rows[8], quads[8];
    for (int i = 0; i < 8; i++) {
        const char * row = first + (i < 4 ? i : i + 4) * stride;
        const __m256i lower = _mm256_maskz_loadu_epi16(in_row, row);
        const __m256i upper = _mm256_maskz_loadu_epi16(in_row, row + 4 * stride);
        rows[i] = _mm512_inserti64x4(_mm512_castsi256_si512(lower), upper, 1);
    }
    for (int i = 0; i < 8; i += 4) {
        const __m512i low01 = _mm512_unpacklo_epi32(rows[i], rows[i + 1]);
        const __m512i high01 = _mm512_unpackhi_epi32(rows[i], rows[i + 1]);
        const __m512i low23 = _mm512_unpacklo_epi32(rows[i + 2], rows[i + 3]);
        const __m512i high23 = _mm512_unpackhi_epi32(rows[i + 2], rows[i + 3]);
        quads[i] = _mm512_unpacklo_epi64(low01, low23);
        quads[i + 1] = _mm512_unpackhi_epi64(low01, low23);
        quads[i + 2] = _mm512_unpacklo_epi64(high01, high23);
        quads[i + 3] = _mm512_unpackhi_epi64(high01, high23);
    }
    for (int i = 0; i < 4; i++) {
        words[i] = _mm512_shuffle_i32x4(quads[i], quads[i + 4], 0x88);
        words[i + 4] = _mm512_shuffle_i32x4(quads[i], quads[i + 4], 0xdd);
    }
}

// Row i of the result has lane i of all rows.
KERNEL inline void transpose(Words rows[LANES]) {
    __m512i transposed[LANES];
    for (int half = 0; half < 2; half++) {
        const char * first = reinterpret_cast<const char *>(rows) + 32 * half;
        transpose<32>(first, sizeof *rows, transposed + 8 * half);
    }
    for (int i = 0; i < LANES; i++) {
        rows[i] = Words(transposed[i]);
    }
}

// Reads `COUNT` words of each row; rows lie `stride` bytes apart from `first` on. Lane r of words[i] becomes
// word i of row r. Reads nothing else: memory after the last row may be unmapped.
template <int COUNT>
KERNEL inline void load_words(const char * first, int64_t stride, Words * words) {
    static_assert(COUNT == 8);
    __m512i transposed[8];
    transpose<32>(first, stride, transposed);
    for (int i = 0; i < 8; i++) {
        words[i] = Words(transposed[i]);
    }
}

template <>
KERNEL inline void load_words<4>(const char * first, int64_t stride, Words * words) {
    __m512i rows[4];
    for (int i = 0; i < 4; i++) {
        const auto quarter = [&](int index) KERNEL {
            const char * row = first + (i + 4 * index) * stride;
            return _mm_loadu_si128(reinterpret_cast<const __m128i *>(row));
        };
        rows[i] = _mm512_castsi128_si512(quarter(0));
        rows[i] = _mm512_inserti32x4(rows[i], quarter(1), 1);
        rows[i] = _mm512_inserti32x4(rows[i], quarter(2), 2);
        rows[i] = _mm512_inserti32x4(rows[i], quarter(3), 3);
    }
    const __m512i low01 = _mm512_unpacklo_epi32(rows[0], rows[1]);
    const __m512i high01 = _mm512_unpackhi_epi32(rows[0], rows[1]);
    const __m512i low23 = _mm512_unpacklo_epi32(rows[2], rows[3]);
    const __m512i high23 = _mm512_unpackhi_epi32(rows[2], rows[3]);
    words[0] = Words(_mm512_unpacklo_epi64(low01, low23));
    words[1] = Words(_mm512_unpackhi_epi64(low01, low23));
    words[2] = Words(_mm512_unpacklo_epi64(high01, high23));
    words[3] = Words(_mm512_unpackhi_epi64(high01, high23));
}

template <>
KERNEL inline void load_words<1>(const char * first, int64_t stride, Words * words) {
    uint32_t row_words[LANES];
    for (int row = 0; row < LANES; row++) {
        memcpy(&row_words[row], first + row * stride, sizeof row_words[row]);
    }
    *words = Words(_mm512_loadu_si512(row_words));
}

// The same for quants of super-blocks.
KERNEL inline void load_quants(const char * first, int64_t stride, Words words[8]) {
    load_words<8>(first, stride, words);
}

// The lower 16 bits of each word, a half-precision number, as a float.
KERNEL inline Floats half_to_float(Words words) {
    return _mm512_cvtph_ps(_mm512_cvtepi32_epi16(__m512i(words)));
}

// Sums of a super-block are integers, as those of tiles (amx_mul_mat.h) and of single rows (avx512_rows.h).
using SubBlockScale = SignedWords;

KERNEL inline SubBlockScale sub_block_scale(SignedWords scale) { return scale; }

// What makes the weights of codebooks unsigned, as dot products take them.
constexpr int IQ4_OFFSET = 128, MXFP4_OFFSET = 128;

constexpr bool WIDENS_SIGNED_QUANTS = false;

// Signed quants are unpacked where they are stored.
KERNEL inline void store_signed_quants(const Words *, Words *) {}

// What a dot product starts from, so that quants count from `offset` on. The sums are those of the lower and
// of the upper two bytes of each word of the activations.
inline int32_t start_of_dot_product(int offset, int lower_sum, int upper_sum) {
    return -offset * (lower_sum + upper_sum);
}

}  // namespace
