// Dot products of blocks of weights with activations, in registers of AVX2.
#pragma once

#include "avx2_words.h"
#include "block_weights.h"

namespace {

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
