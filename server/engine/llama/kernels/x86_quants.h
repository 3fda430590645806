// Sums of quantized activations, for both instruction sets of x86.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace {

// Adds the quants of a sub-block: the lower two bytes of all words, and the upper two.
template <int WORDS>
KERNEL inline void add_quants(const int32_t * quants, int16_t & lower_sum, int16_t & upper_sum) {
    __m128i sums = _mm_setzero_si128();
    for (int i = 0; i < WORDS; i += 4) {
        const __m128i four = _mm_loadu_si128(reinterpret_cast<const __m128i *>(quants + i));
        sums = _mm_add_epi16(sums, _mm_maddubs_epi16(_mm_set1_epi8(1), four));
    }
    sums = _mm_add_epi16(sums, _mm_shuffle_epi32(sums, 0x4e));
    sums = _mm_add_epi16(sums, _mm_shuffle_epi32(sums, 0xb1));
    const int32_t both = _mm_cvtsi128_si32(sums);
    lower_sum = int16_t(both);
    upper_sum = int16_t(both >> 16);
}

}  // namespace
