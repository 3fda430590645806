/* Numbers in KV cells as integers of 16 bits, with vectors of half precision (AVX512-FP16).
 *
 * An integer counts units of 2^-15 of a power of two that is larger than the numbers.
 */
#pragma once

#include "attention_op.h"

namespace {

// A power of two, times which numbers become integers. Half precision has no more than 2^15; larger ones are given by their
// exponent, which takes longer.
struct Factor {
    __m512h factor;
    KERNEL __m512h times(__m512h numbers) const { return _mm512_mul_ph(numbers, factor); }
};

struct LargeFactor {
    __m512h exponent;
    KERNEL __m512h times(__m512h numbers) const { return _mm512_scalef_ph(numbers, exponent); }
};

// 32 numbers of a cell, or the last 16, as integers: numbers times a factor, times 2^-SCALE_BITS.
template <bool FULL, typename AnyFactor>
KERNEL inline __m512i load_integers(const ggml_fp16_t * halves, AnyFactor factor) {
    const __m512i numbers = FULL ? _mm512_loadu_si512(halves) : _mm512_maskz_loadu_epi16(0xffff, halves);
    return _mm512_cvtph_epi16(factor.times(_mm512_castsi512_ph(numbers)));
}

// Of quants in the upper bits of words.
template <typename AnyFactor>
KERNEL inline __m512i multiply_scale(__m512i quants, ggml_fp16_t scale, AnyFactor factor) {
    const __m512h of_block = _mm512_castsi512_ph(_mm512_set1_epi16(int16_t(scale)));
    return _mm512_mulhrs_epi16(quants, _mm512_cvtph_epi16(factor.times(of_block)));
}

template <bool, typename AnyFactor>
KERNEL inline __m512i load_integers(const block_q8_0 * block, AnyFactor factor) {
    const __m512i quants = _mm512_cvtepi8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i *>(block->qs)));
    return multiply_scale(_mm512_slli_epi16(quants, 8), block->d, factor);
}

// Quants i and i + 16 are in one byte.
template <bool, typename AnyFactor>
KERNEL inline __m512i load_integers(const block_q4_0 * block, AnyFactor factor) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i *>(block->qs));
    const __m512i pairs = _mm512_cvtepu8_epi16(_mm256_broadcastsi128_si256(bytes));
    const __m512i upper = _mm512_mask_slli_epi16(_mm512_slli_epi16(pairs, 12), 0xffff0000, pairs, 8);
    // Without the lower quant, and less 8.
    const __m512i quants = _mm512_xor_si512(_mm512_and_si512(upper, _mm512_set1_epi16(int16_t(0xf000))),
                                            _mm512_set1_epi16(int16_t(0x8000)));
    return multiply_scale(quants, block->d, factor);
}

// Quants of Q8_0 are at least -2^7, those of Q4_0 -2^3.
template <typename Number>
constexpr int SCALE_BITS = std::is_same_v<Number, ggml_fp16_t> ? 0 : IS_Q8_0<Number> ? 7 : 3;

// The largest number of each cell of a tile, without its sign; of quantized cells, the largest scale.
KERNEL inline Halves largest_of_cells(const ggml_fp16_t * const cells[KV_TILE], int64_t head_dim) {
    const __m512i magnitude = _mm512_set1_epi16(0x7fff);
    const auto largest = [&](int cell) KERNEL {
        __m512i result = _mm512_setzero_si512();
        const ggml_fp16_t * halves = cells[cell];
        for (; halves + 32 <= cells[cell] + head_dim; halves += 32) {
            result = _mm512_max_epu16(result, _mm512_and_si512(_mm512_loadu_si512(halves), magnitude));
        }
        if (halves < cells[cell] + head_dim) {
            const __m512i last = _mm512_maskz_loadu_epi16(0xffff, halves);
            result = _mm512_max_epu16(result, _mm512_and_si512(last, magnitude));
        }
        return result;
    };
    // Two cells share a register, one in each half; then those of two registers do, three times.
    constexpr int ORDER[8] = {0, 4, 2, 6, 1, 5, 3, 7};
    __m512i pairs[8];
    for (int i = 0; i < 8; i++) {
        const __m512i a = largest(ORDER[i]), b = largest(ORDER[i] + 8);
        pairs[i] = _mm512_max_epu16(_mm512_shuffle_i64x2(a, b, 0x44), _mm512_shuffle_i64x2(a, b, 0xee));
    }
    for (int count = 4; count > 0; count /= 2) {
        for (int i = 0; i < count; i++) {
            const __m512i a = pairs[2 * i], b = pairs[2 * i + 1];
            pairs[i] = _mm512_max_epu16(_mm512_unpacklo_epi16(a, b), _mm512_unpackhi_epi16(a, b));
        }
    }
    const __m512i both = _mm512_max_epu16(pairs[0], _mm512_shuffle_i64x2(pairs[0], pairs[0], 0xb1));
    return _mm512_castsi512_si256(_mm512_shuffle_i64x2(both, both, 0x88));
}

template <typename Block>
KERNEL inline Halves largest_of_cells(const Block * const cells[KV_TILE], int64_t head_dim) {
    alignas(32) uint16_t largest[KV_TILE];
    for (int64_t i = 0; i < KV_TILE; i++) {
        largest[i] = 0;
        for (const Block * block = cells[i]; block < cells[i] + head_dim / BLOCK_SIZE; block++) {
            largest[i] = std::max<uint16_t>(largest[i], block->d & 0x7fff);
        }
    }
    return _mm256_load_si256(reinterpret_cast<const __m256i *>(largest));
}

}  // namespace
