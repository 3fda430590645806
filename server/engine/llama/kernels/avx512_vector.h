// The vector operations of the kernels with AVX-512: registers of 16 floats.
#pragma once

#include "ggml.h"

#include <immintrin.h>

#include <cstdint>

#if defined(KERNEL_TILES)
#define KERNEL __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512fp16,f16c,fma")))
#else
#define KERNEL __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,f16c,fma")))
#endif

namespace {

constexpr int64_t LANES = 16;
using Floats = __m512;
// A 32-bit word in each lane, with the operators of integers.
using Words = uint32_t __attribute__((vector_size(64)));
using SignedWords = int32_t __attribute__((vector_size(64)));

KERNEL inline Floats load(const float * aligned) { return _mm512_load_ps(aligned); }

// The same for several operations: the compiler would read the numbers again for each, and a processor reads two registers in a
// cycle at best.
KERNEL inline Floats load_once(const float * aligned) {
    Floats numbers = load(aligned);
    asm("" : "+v"(numbers));
    return numbers;
}

KERNEL inline Floats load_unaligned(const float * numbers) { return _mm512_loadu_ps(numbers); }

KERNEL inline void store(float * aligned, Floats a) { _mm512_store_ps(aligned, a); }

KERNEL inline void store_unaligned(float * numbers, Floats a) { _mm512_storeu_ps(numbers, a); }

KERNEL inline float to_float(ggml_fp16_t half) { return _cvtsh_ss(half); }

KERNEL inline Floats load_halves(const ggml_fp16_t * numbers) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i *>(numbers)));
}

// Numbers in bfloat16: the upper half of a float.
KERNEL inline Floats load_brain_halves(const ggml_bf16_t * numbers) {
    const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i *>(numbers));
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
}

// As many bytes as there are lanes, each in one.
KERNEL inline Words load_bytes(const uint8_t * bytes) {
    return Words(
        _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i *>(bytes))));
}

KERNEL inline SignedWords load_bytes(const int8_t * bytes) {
    return SignedWords(
        _mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i *>(bytes))));
}

KERNEL inline Floats broadcast(float number) { return _mm512_set1_ps(number); }

KERNEL inline Words broadcast(uint32_t word) { return Words{} + word; }

KERNEL inline Floats to_floats(SignedWords a) { return _mm512_cvtepi32_ps(__m512i(a)); }

KERNEL inline Floats add(Floats a, Floats b) { return _mm512_add_ps(a, b); }

KERNEL inline Floats subtract(Floats a, Floats b) { return _mm512_sub_ps(a, b); }

KERNEL inline Floats multiply(Floats a, Floats b) { return _mm512_mul_ps(a, b); }

KERNEL inline Floats divide(Floats a, Floats b) { return _mm512_div_ps(a, b); }

KERNEL inline Floats maximum(Floats a, Floats b) { return _mm512_max_ps(a, b); }

// a * b + c.
KERNEL inline Floats multiply_add(Floats a, Floats b, Floats c) { return _mm512_fmadd_ps(a, b, c); }

// c - a * b.
KERNEL inline Floats subtract_product(Floats c, Floats a, Floats b) {
    return _mm512_fnmadd_ps(a, b, c);
}

// Exchanges each two lanes that are a power of two apart.
template <int64_t DISTANCE>
KERNEL inline Floats exchange_lanes(Floats a) {
    if constexpr (DISTANCE < 4) {
        return _mm512_permute_ps(a, DISTANCE == 1 ? 0xb1 : 0x4e);
    } else {
        return _mm512_shuffle_f32x4(a, a, DISTANCE == 4 ? 0xb1 : 0x4e);
    }
}

KERNEL inline float horizontal_max(Floats a) { return _mm512_reduce_max_ps(a); }

// The order in which horizontal_sums() adds lanes: the place of each, where neighbours are added, then pairs of them, and so on.
constexpr int64_t LANE_PLACES[LANES] = {0, 2, 1, 3, 4, 6, 5, 7, 8, 10, 9, 11, 12, 14, 13, 15};

// The sums of the lanes of four registers, but for what combine_sums() adds.
KERNEL inline Floats partial_sums(Floats a, Floats b, Floats c, Floats d) {
    const __m512 ab = _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
    const __m512 cd = _mm512_add_ps(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
    const __m512d first = _mm512_castps_pd(ab), second = _mm512_castps_pd(cd);
    return _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(first, second)),
                         _mm512_castpd_ps(_mm512_unpackhi_pd(first, second)));
}

// Lane 4 i + j of the result is the sum of the lanes of register j that sums[i] was made from.
KERNEL inline Floats combine_sums(const Floats sums[LANES / 4]) {
    const auto pairs = [](Floats a, Floats b) KERNEL {
        return _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xdd));
    };
    return pairs(pairs(sums[0], sums[1]), pairs(sums[2], sums[3]));
}

// Replaces each byte, at most 15, by that byte of `table`.
KERNEL inline Words look_up(const int8_t table[16], Words bytes) {
    const __m128i entries = _mm_loadu_si128(reinterpret_cast<const __m128i *>(table));
    return Words(_mm512_shuffle_epi8(_mm512_broadcast_i32x4(entries), __m512i(bytes)));
}

// To the nearest integers, ties to even.
KERNEL inline Floats round_to_nearest(Floats a) {
    return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

// a * 2^exponent in lanes where x > lower_bound or x is NaN, 0 in the others. Exponents are integers, and
// the product must be a normal float.
KERNEL inline Floats scale_by_power_of_two(Floats a, Floats exponent, Floats x, float lower_bound) {
    const __mmask16 above = _mm512_cmp_ps_mask(x, _mm512_set1_ps(lower_bound), _CMP_NLE_UQ);
    return _mm512_maskz_scalef_ps(above, a, exponent);
}

// Whether any lane of `a` is at least `bound` or NaN.
KERNEL inline bool any_reaches(Floats a, float bound) {
    return _mm512_cmp_ps_mask(a, _mm512_set1_ps(bound), _CMP_NLT_UQ) != 0;
}

// Numbers from 0 to 1 in units of 2^-30, each rounded to one; two of them added in each lane.
using Longs = int64_t __attribute__((vector_size(64)));

KERNEL inline Longs fixed_point(Floats a) {
    const __m512i units = _mm512_cvtps_epi32(_mm512_mul_ps(a, _mm512_set1_ps(1 << 30)));
    const __m512i zero = _mm512_setzero_si512();
    return Longs(_mm512_unpacklo_epi32(units, zero)) + Longs(_mm512_unpackhi_epi32(units, zero));
}

// 16 numbers in half precision.
using Halves = __m256i;

// The larger one of each place, without its sign; compared as integers, whose order is the same.
KERNEL inline Halves larger_magnitudes(Halves largest, const ggml_fp16_t * halves) {
    const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i *>(halves));
    return _mm256_max_epu16(largest, _mm256_and_si256(bits, _mm256_set1_epi16(0x7fff)));
}

KERNEL inline Floats to_floats(Halves halves) { return _mm512_cvtph_ps(halves); }

// A bit for each of 16 halves: whether its bits differ from `value`.
KERNEL inline unsigned not_equal(const ggml_fp16_t * halves, uint16_t value) {
    const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i *>(halves));
    return _mm256_cmpneq_epi16_mask(bits, _mm256_set1_epi16(int16_t(value)));
}

// The largest absolute value of 32 numbers, or NaN if there is one. The bits of absolute values, compared
// as integers, have the same order, with NaN above infinity.
KERNEL inline float absmax(const float * numbers) {
    const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
    const __m512i lower = _mm512_and_si512(_mm512_loadu_si512(numbers), magnitude);
    const __m512i upper = _mm512_and_si512(_mm512_loadu_si512(numbers + 16), magnitude);
    const int32_t largest = _mm512_reduce_max_epi32(_mm512_max_epi32(lower, upper));
    return _mm_cvtss_f32(_mm_castsi128_ps(_mm_cvtsi32_si128(largest)));
}

// Quantizes 32 numbers to bytes, quant = round(number * inverse_scale), and returns the sum of the quants.
KERNEL inline int32_t quantize_to_int8(const float * numbers, float inverse_scale, void * quants) {
    const auto quantized = [&](const float * sixteen) KERNEL {
        const __m512 scaled = _mm512_mul_ps(_mm512_loadu_ps(sixteen), _mm512_set1_ps(inverse_scale));
        // What is no number becomes the least integer; the sum of several would overflow.
        return _mm512_max_epi32(_mm512_cvtps_epi32(scaled), _mm512_set1_epi32(INT8_MIN));
    };
    const __m512i lower = quantized(numbers), upper = quantized(numbers + 16);
    auto * target = static_cast<__m128i *>(quants);
    _mm_storeu_si128(target, _mm512_cvtsepi32_epi8(lower));
    _mm_storeu_si128(target + 1, _mm512_cvtsepi32_epi8(upper));
    return _mm512_reduce_add_epi32(_mm512_add_epi32(lower, upper));
}

}  // namespace
