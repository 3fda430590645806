// Blocks of weights, unpacked into registers of AVX2, and their dot products with activations.
#pragma once

#include <cstddef>

#include "avx2_words.h"
#include "blocks.h"

namespace {

// One block of each of 8 rows, a row in each lane: weight = scale * quant + offset.
struct WeightBlocks {
    Words quants[BLOCK_SIZE / 4];  // four neighbouring quants are the bytes of a lane
    Floats scale, offset;
};

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

// block_q8_0 in memory: the scale; 32 signed quants.
KERNEL inline void unpack_q8_0(const char * first, int64_t stride, WeightBlocks & blocks) {
    Words scales;
    load_words<1>(first, stride, &scales);
    blocks.scale = half_to_float(scales);
    blocks.offset = broadcast(0.f);
    load_words<8>(first + offsetof(block_q8_0, qs), stride, blocks.quants);
}

// The other formats in memory: the scale; the minimum, if any; the fifth bits of all quants, if any; the
// lower four bits, those of quants i and i + 16 in one byte.
template <typename Block>
KERNEL inline void unpack_nibbles(const char * first, int64_t stride, WeightBlocks & blocks) {
    Words scales, pairs[4];
    load_words<1>(first, stride, &scales);
    blocks.scale = half_to_float(scales);
    if (HAS_MINIMUM<Block>) {
        blocks.offset = half_to_float(scales >> 16);
    } else {
        blocks.offset = multiply(blocks.scale, broadcast(HAS_FIFTH_BITS<Block> ? -16.f : -8.f));
    }
    load_words<4>(first + offsetof(Block, qs), stride, pairs);
    for (int i = 0; i < 4; i++) {
        blocks.quants[i] = pairs[i] & 0x0f0f0f0f;
        blocks.quants[i + 4] = pairs[i] >> 4 & 0x0f0f0f0f;
    }
    if constexpr (HAS_FIFTH_BITS<Block>) {
        Words fifth_bits;
        load_words<1>(first + offsetof(Block, qh), stride, &fifth_bits);
        add_fifth_bits(fifth_bits, blocks.quants);
    }
}

// The products of four bytes in each lane, two of them added in 16 bits. The instruction takes an unsigned
// operand first: the sign of signed quants moves to the other one.
template <bool SIGNED>
KERNEL inline __m256i products_of_bytes(__m256i quants, __m256i activations) {
    return SIGNED ? _mm256_maddubs_epi16(_mm256_abs_epi8(quants),
                                         _mm256_sign_epi8(activations, quants))
                  : _mm256_maddubs_epi16(quants, activations);
}

// Each row's dot product of quants with those of the activations, four in a word. The instruction adds
// two products into 16 bits; WORDS_IN_16_BITS of these sums still fit into 16 bits.
template <typename Block>
KERNEL inline Floats dot_products(const WeightBlocks & blocks, const int32_t activations[8]) {
    constexpr bool SIGNED = IS_Q8_0<Block> || HAS_CODEBOOK<Block>;
    constexpr int WORDS_IN_16_BITS = SIGNED ? 1 : HAS_FIFTH_BITS<Block> ? 4 : 8;
    __m256i sum = _mm256_setzero_si256();
    for (int i = 0; i < 8; i += WORDS_IN_16_BITS) {
        __m256i pairs = _mm256_setzero_si256();
        for (int j = i; j < i + WORDS_IN_16_BITS; j++) {
            const __m256i other = _mm256_set1_epi32(activations[j]);
            pairs = _mm256_add_epi16(
                pairs, products_of_bytes<SIGNED>(__m256i(blocks.quants[j]), other));
        }
        sum = _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
    }
    return _mm256_cvtepi32_ps(sum);
}

}  // namespace
