// Blocks of weights, unpacked into registers of AVX-512, and their dot products with activations.
#pragma once

#include <cstddef>

#include "avx512_words.h"
#include "blocks.h"

namespace {

// Adds 16 to each quant whose fifth bit is set. Bit i of a lane belongs to quant i of its row.
KERNEL inline void add_fifth_bits(__m512i fifth_bits, Words quants[8]) {
    const __m512i even_bits = _mm512_set1_epi32(0x08040201);
    const __m512i odd_bits = _mm512_set1_epi32(int(0x80402010));
    const __m512i sixteen = _mm512_set1_epi8(16);
    __m512i byte_indices = _mm512_set4_epi32(0x0c0c0c0c, 0x08080808, 0x04040404, 0x00000000);
    for (int i = 0; i < 8; i += 2) {
        const __m512i byte = _mm512_shuffle_epi8(fifth_bits, byte_indices);
        const __mmask64 even = _mm512_test_epi8_mask(byte, even_bits);
        const __mmask64 odd = _mm512_test_epi8_mask(byte, odd_bits);
        quants[i] |= Words(_mm512_maskz_mov_epi8(even, sixteen));
        quants[i + 1] |= Words(_mm512_maskz_mov_epi8(odd, sixteen));
        byte_indices = _mm512_add_epi8(byte_indices, _mm512_set1_epi8(1));
    }
}

// block_q8_0 in memory: the scale; 32 signed quants.
KERNEL inline void unpack_q8_0(const char * first, int64_t stride, WeightBlocks & blocks) {
    load_words<8>(first + offsetof(block_q8_0, qs), stride, blocks.quants);
    for (Words & quants : blocks.quants) {
        quants ^= 0x80808080;
    }
    ggml_half scales[LANES];
    for (int row = 0; row < LANES; row++) {
        scales[row] = reinterpret_cast<const block_q8_0 *>(first + row * stride)->d;
    }
    blocks.scale = load_halves(scales);
    blocks.offset = multiply(blocks.scale, broadcast(-128.f));
}

// The other formats in memory: the scale; the minimum, if any; the fifth bits of all quants, if any; the
// lower four bits, those of quants i and i + 16 in one byte.
template <typename Block>
KERNEL inline void unpack_nibbles(const char * first, int64_t stride, WeightBlocks & blocks) {
    __m512i words[8];
    transpose<sizeof(Block)>(first, stride, words);
    blocks.scale = half_to_float(Words(words[0]));
    if (HAS_MINIMUM<Block>) {
        blocks.offset = half_to_float(Words(words[0]) >> 16);
    } else {
        blocks.offset = multiply(blocks.scale, broadcast(HAS_FIFTH_BITS<Block> ? -16.f : -8.f));
    }
    // Without a minimum, what follows the scale begins in the middle of a word.
    const auto word = [&](int i) KERNEL {
        return HAS_MINIMUM<Block> ? words[i + 1]
                                  : _mm512_or_si512(_mm512_srli_epi32(words[i], 16),
                                                    _mm512_slli_epi32(words[i + 1], 16));
    };
    for (int i = 0; i < 4; i++) {
        const Words pairs = Words(word(i + HAS_FIFTH_BITS<Block>));
        blocks.quants[i] = pairs & NIBBLES;
        blocks.quants[i + 4] = pairs >> 4 & NIBBLES;
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
        even = _mm512_dpbusd_epi32(even, __m512i(blocks.quants[i]), first);
        odd = _mm512_dpbusd_epi32(odd, __m512i(blocks.quants[i + 1]), second);
    }
    return _mm512_cvtepi32_ps(_mm512_add_epi32(even, odd));
}

}  // namespace
