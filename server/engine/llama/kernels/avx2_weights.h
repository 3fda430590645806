// Blocks of weights in registers of AVX2, and their products.
#pragma once

#include <cstddef>
#include <cstring>

#include "avx2_vector.h"
#include "blocks.h"

namespace {

// A block of each of 8 rows: weight = scale * quant + offset.
struct Weights {
    __m256i quants[BLOCK / 4];  // those of four neighbours are the bytes of a lane
    Floats scale, offset;
};

// The 16 bytes from `first` on, and as many of each other row, `stride` bytes apart, as words of 32
// bits: words[i] becomes word i of all rows.
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

// The word of 32 bits at `first`, and that of each other row, `stride` bytes apart.
KERNEL inline __m256i gather(const char * first, int64_t stride) {
    int32_t words[LANES];
    for (int row = 0; row < LANES; row++) {
        memcpy(&words[row], first + row * stride, sizeof words[row]);
    }
    return _mm256_setr_epi32(words[0], words[1], words[2], words[3], words[4], words[5], words[6],
                             words[7]);
}

// What the lower halves of the lanes are in half precision.
KERNEL inline Floats half_to_float(__m256i words) {
    const __m256i halves = _mm256_and_si256(words, _mm256_set1_epi32(0xffff));
    return _mm256_cvtph_ps(_mm_packus_epi32(_mm256_castsi256_si128(halves),
                                            _mm256_extracti128_si256(halves, 1)));
}

// 16 more for each quant whose bit is set, bit i of a lane for quant i of its row.
KERNEL inline void add_fifth_bits(__m256i bits, __m256i quants[8]) {
    const __m256i sixteen = _mm256_set1_epi8(16);
    __m256i from = _mm256_broadcastsi128_si256(
        _mm_setr_epi32(0x00000000, 0x04040404, 0x08080808, 0x0c0c0c0c));
    for (int i = 0; i < 8; i++) {
        const __m256i bit = _mm256_set1_epi32(int(i % 2 == 0 ? 0x08040201 : 0x80402010));
        const __m256i byte = _mm256_shuffle_epi8(bits, from);
        const __m256i is_set = _mm256_cmpeq_epi8(_mm256_and_si256(byte, bit), bit);
        quants[i] = _mm256_or_si256(quants[i], _mm256_and_si256(is_set, sixteen));
        from = _mm256_add_epi8(from, _mm256_set1_epi8(i % 2));
    }
}

// In memory: the scale, the quants, signed.
KERNEL inline void unpack_bytes(const char * first, int64_t stride, Weights & weights) {
    weights.scale = half_to_float(gather(first, stride));
    weights.offset = in_all_lanes(0);
    const char * quants = first + offsetof(block_q8_0, qs);
    transpose(quants, stride, weights.quants);
    transpose(quants + BLOCK / 2, stride, weights.quants + 4);
}

// In memory: the scale; the minimum, if there is one; the fifth bits of the quants, if they have; the
// other four, quant i and quant i + 16 in a byte.
template <typename Block>
KERNEL inline void unpack_bits(const char * first, int64_t stride, Weights & weights) {
    const __m256i scales = gather(first, stride);
    weights.scale = half_to_float(scales);
    if (HAS_MINIMUM<Block>) {
        weights.offset = half_to_float(_mm256_srli_epi32(scales, 16));
    } else {
        weights.offset = multiply(weights.scale, in_all_lanes(HAS_FIFTH_BITS<Block> ? -16 : -8));
    }
    __m256i pairs[4];
    transpose(first + offsetof(Block, qs), stride, pairs);
    const __m256i nibble = _mm256_set1_epi8(15);
    for (int i = 0; i < 4; i++) {
        weights.quants[i] = _mm256_and_si256(pairs[i], nibble);
        weights.quants[i + 4] = _mm256_and_si256(_mm256_srli_epi16(pairs[i], 4), nibble);
    }
    if constexpr (HAS_FIFTH_BITS<Block>) {
        add_fifth_bits(gather(first + offsetof(Block, qh), stride), weights.quants);
    }
}

// Each row's sum of quants times those of the activations, four in a word. Two products, and sums of
// as many pairs as are added up here before they become words, fit into 16 bits.
template <typename Block>
KERNEL inline Floats multiply(const Weights & weights, const int32_t activations[8]) {
    constexpr int TOGETHER = IS_BYTES<Block> ? 1 : HAS_FIFTH_BITS<Block> ? 4 : 8;
    __m256i sum = _mm256_setzero_si256();
    for (int i = 0; i < 8; i += TOGETHER) {
        __m256i pairs = _mm256_setzero_si256();
        for (int j = i; j < i + TOGETHER; j++) {
            const __m256i quants = weights.quants[j], others = _mm256_set1_epi32(activations[j]);
            // The instruction takes unsigned numbers and signed ones.
            const __m256i products =
                IS_BYTES<Block>
                    ? _mm256_maddubs_epi16(_mm256_abs_epi8(quants), _mm256_sign_epi8(others, quants))
                    : _mm256_maddubs_epi16(quants, others);
            pairs = _mm256_add_epi16(pairs, products);
        }
        sum = _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
    }
    return _mm256_cvtepi32_ps(sum);
}

}  // namespace
