// Blocks of weights, unpacked into registers of AVX2, and their dot products with activations.
#pragma once

#include <cstddef>
#include <cstring>

#include "avx2_vector.h"
#include "blocks.h"

namespace {

// One block of each of 8 rows, a row in each lane: weight = scale * quant + offset.
struct WeightBlocks {
    __m256i quants[BLOCK_SIZE / 4];  // four neighbouring quants are the bytes of a lane
    Floats scale, offset;
};

// Reads 16 bytes of each row; rows lie `stride` bytes apart from `first` on. Lane r of words[i] becomes
// the 32-bit word i of row r.
KERNEL inline void transpose(const char * first, int64_t stride, __m256i words[4]) {
    __m256i rows[4];
    for (int i = 0; i < 4; i++) {
        const char * row = first + i * stride;
        const __m128i lower = _mm_loadu_si128(reinterpret_cast<const __m128i *>(row));
        const __m128i upper = _mm_loadu_si128(reinterpret_cast<const __m128i *>(row + 4 * stride));
        rows[i] = _mm256_inserti128_si256(_mm256_castsi128_si256(lower), upper, 1);
    }
    const __m256i low01 = _mm256_unpacklo_epi32(rows[0], rows[1]);
    const __m256i high01 = _mm256_unpackhi_epi32(rows[0], rows[1]);
    const __m256i low23 = _mm256_unpacklo_epi32(rows[2], rows[3]);
    const __m256i high23 = _mm256_unpackhi_epi32(rows[2], rows[3]);
    words[0] = _mm256_unpacklo_epi64(low01, low23);
    words[1] = _mm256_unpackhi_epi64(low01, low23);
    words[2] = _mm256_unpacklo_epi64(high01, high23);
    words[3] = _mm256_unpackhi_epi64(high01, high23);
}

// Reads one 32-bit word of each row; rows lie `stride` bytes apart from `first` on.
KERNEL inline __m256i gather_words(const char * first, int64_t stride) {
    int32_t words[LANES];
    for (int row = 0; row < LANES; row++) {
        memcpy(&words[row], first + row * stride, sizeof words[row]);
    }
    return _mm256_setr_epi32(words[0], words[1], words[2], words[3], words[4], words[5], words[6],
                             words[7]);
}

// The lower 16 bits of each word, a half-precision number, as a float.
KERNEL inline Floats half_to_float(__m256i words) {
    const __m256i halves = _mm256_and_si256(words, _mm256_set1_epi32(0xffff));
    return _mm256_cvtph_ps(_mm_packus_epi32(_mm256_castsi256_si128(halves),
                                            _mm256_extracti128_si256(halves, 1)));
}

// Adds 16 to each quant whose fifth bit is set. Bit i of a lane belongs to quant i of its row.
KERNEL inline void add_fifth_bits(__m256i fifth_bits, __m256i quants[8]) {
    const __m256i sixteen = _mm256_set1_epi8(16);
    __m256i byte_indices = _mm256_broadcastsi128_si256(
        _mm_setr_epi32(0x00000000, 0x04040404, 0x08080808, 0x0c0c0c0c));
    for (int i = 0; i < 8; i++) {
        const __m256i bit = _mm256_set1_epi32(int(i % 2 == 0 ? 0x08040201 : 0x80402010));
        const __m256i byte = _mm256_shuffle_epi8(fifth_bits, byte_indices);
        const __m256i is_set = _mm256_cmpeq_epi8(_mm256_and_si256(byte, bit), bit);
        quants[i] = _mm256_or_si256(quants[i], _mm256_and_si256(is_set, sixteen));
        byte_indices = _mm256_add_epi8(byte_indices, _mm256_set1_epi8(i % 2));
    }
}

// block_q8_0 in memory: the scale; 32 signed quants.
KERNEL inline void unpack_q8_0(const char * first, int64_t stride, WeightBlocks & blocks) {
    blocks.scale = half_to_float(gather_words(first, stride));
    blocks.offset = broadcast(0);
    const char * quants = first + offsetof(block_q8_0, qs);
    transpose(quants, stride, blocks.quants);
    transpose(quants + BLOCK_SIZE / 2, stride, blocks.quants + 4);
}

// The other formats in memory: the scale; the minimum, if any; the fifth bits of all quants, if any; the
// lower four bits, those of quants i and i + 16 in one byte.
template <typename Block>
KERNEL inline void unpack_nibbles(const char * first, int64_t stride, WeightBlocks & blocks) {
    const __m256i scales = gather_words(first, stride);
    blocks.scale = half_to_float(scales);
    if (HAS_MINIMUM<Block>) {
        blocks.offset = half_to_float(_mm256_srli_epi32(scales, 16));
    } else {
        blocks.offset = multiply(blocks.scale, broadcast(HAS_FIFTH_BITS<Block> ? -16 : -8));
    }
    __m256i pairs[4];
    transpose(first + offsetof(Block, qs), stride, pairs);
    const __m256i nibble = _mm256_set1_epi8(15);
    for (int i = 0; i < 4; i++) {
        blocks.quants[i] = _mm256_and_si256(pairs[i], nibble);
        blocks.quants[i + 4] = _mm256_and_si256(_mm256_srli_epi16(pairs[i], 4), nibble);
    }
    if constexpr (HAS_FIFTH_BITS<Block>) {
        add_fifth_bits(gather_words(first + offsetof(Block, qh), stride), blocks.quants);
    }
}

// Each row's dot product of quants with those of the activations, four in a word. The instruction adds
// two products into 16 bits; WORDS_IN_16_BITS of these sums still fit into 16 bits.
template <typename Block>
KERNEL inline Floats dot_products(const WeightBlocks & blocks, const int32_t activations[8]) {
    constexpr int WORDS_IN_16_BITS = IS_Q8_0<Block> ? 1 : HAS_FIFTH_BITS<Block> ? 4 : 8;
    __m256i sum = _mm256_setzero_si256();
    for (int i = 0; i < 8; i += WORDS_IN_16_BITS) {
        __m256i pairs = _mm256_setzero_si256();
        for (int j = i; j < i + WORDS_IN_16_BITS; j++) {
            const __m256i quants = blocks.quants[j], other = _mm256_set1_epi32(activations[j]);
            // The first operand must be unsigned: the sign of a Q8_0 quant moves to the other one.
            const __m256i products =
                IS_Q8_0<Block>
                    ? _mm256_maddubs_epi16(_mm256_abs_epi8(quants), _mm256_sign_epi8(other, quants))
                    : _mm256_maddubs_epi16(quants, other);
            pairs = _mm256_add_epi16(pairs, products);
        }
        sum = _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
    }
    return _mm256_cvtepi32_ps(sum);
}

}  // namespace
