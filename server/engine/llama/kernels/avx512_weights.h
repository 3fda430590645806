// Blocks of weights, unpacked into registers of AVX-512, and their dot products with activations.
#pragma once

#include <cstddef>

#include "avx512_vector.h"
#include "blocks.h"

namespace {

// One block of each of 16 rows, a row in each lane: weight = scale * quant + offset.
struct WeightBlocks {
    __m512i quants[BLOCK_SIZE / 4];  // unsigned; four neighbouring quants are the bytes of a lane
    Floats scale, offset;
};

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

// The lower 16 bits of each word, a half-precision number, as a float.
KERNEL inline Floats half_to_float(__m512i words) {
    return _mm512_cvtph_ps(_mm512_cvtepi32_epi16(words));
}

// Adds 16 to each quant whose fifth bit is set. Bit i of a lane belongs to quant i of its row.
KERNEL inline void add_fifth_bits(__m512i fifth_bits, __m512i quants[8]) {
    const __m512i even_bits = _mm512_set1_epi32(0x08040201);
    const __m512i odd_bits = _mm512_set1_epi32(int(0x80402010));
    const __m512i sixteen = _mm512_set1_epi8(16);
    __m512i byte_indices = _mm512_set4_epi32(0x0c0c0c0c, 0x08080808, 0x04040404, 0x00000000);
    for (int i = 0; i < 8; i += 2) {
        const __m512i byte = _mm512_shuffle_epi8(fifth_bits, byte_indices);
        const __mmask64 even = _mm512_test_epi8_mask(byte, even_bits);
        const __mmask64 odd = _mm512_test_epi8_mask(byte, odd_bits);
        quants[i] = _mm512_mask_add_epi8(quants[i], even, quants[i], sixteen);
        quants[i + 1] = _mm512_mask_add_epi8(quants[i + 1], odd, quants[i + 1], sixteen);
        byte_indices = _mm512_add_epi8(byte_indices, _mm512_set1_epi8(1));
    }
}

// block_q8_0 in memory: the scale; 32 signed quants.
KERNEL inline void unpack_q8_0(const char * first, int64_t stride, WeightBlocks & blocks) {
    transpose<BLOCK_SIZE>(first + offsetof(block_q8_0, qs), stride, blocks.quants);
    for (__m512i & quants : blocks.quants) {
        quants = _mm512_xor_si512(quants, _mm512_set1_epi8(-128));
    }
    ggml_half scales[LANES];
    for (int row = 0; row < LANES; row++) {
        scales[row] = reinterpret_cast<const block_q8_0 *>(first + row * stride)->d;
    }
    blocks.scale = load_halves(scales);
    blocks.offset = multiply(blocks.scale, broadcast(-128));
}

// The other formats in memory: the scale; the minimum, if any; the fifth bits of all quants, if any; the
// lower four bits, those of quants i and i + 16 in one byte.
template <typename Block>
KERNEL inline void unpack_nibbles(const char * first, int64_t stride, WeightBlocks & blocks) {
    __m512i words[8];
    transpose<sizeof(Block)>(first, stride, words);
    blocks.scale = half_to_float(words[0]);
    if (HAS_MINIMUM<Block>) {
        blocks.offset = half_to_float(_mm512_srli_epi32(words[0], 16));
    } else {
        blocks.offset = multiply(blocks.scale, broadcast(HAS_FIFTH_BITS<Block> ? -16 : -8));
    }
    // Without a minimum, what follows the scale begins in the middle of a word.
    const auto word = [&](int i) KERNEL {
        return HAS_MINIMUM<Block> ? words[i + 1]
                                  : _mm512_or_si512(_mm512_srli_epi32(words[i], 16),
                                                    _mm512_slli_epi32(words[i + 1], 16));
    };
    const __m512i nibble = _mm512_set1_epi8(15);
    for (int i = 0; i < 4; i++) {
        const __m512i pairs = word(i + HAS_FIFTH_BITS<Block>);
        blocks.quants[i] = _mm512_and_si512(pairs, nibble);
        blocks.quants[i + 4] = _mm512_and_si512(_mm512_srli_epi16(pairs, 4), nibble);
    }
    if (HAS_FIFTH_BITS<Block>) {
        add_fifth_bits(word(0), blocks.quants);
    }
}

// Each row's dot product of quants with those of the activations, four in a word.
template <typename Block>
KERNEL inline Floats dot_products(const WeightBlocks & blocks, const int32_t activations[8]) {
    __m512i even = _mm512_setzero_si512(), odd = _mm512_setzero_si512();
    for (int i = 0; i < 8; i += 2) {
        const __m512i first = _mm512_set1_epi32(activations[i]);
        const __m512i second = _mm512_set1_epi32(activations[i + 1]);
        even = _mm512_dpbusd_epi32(even, blocks.quants[i], first);
        odd = _mm512_dpbusd_epi32(odd, blocks.quants[i + 1], second);
    }
    return _mm512_cvtepi32_ps(_mm512_add_epi32(even, odd));
}

}  // namespace
