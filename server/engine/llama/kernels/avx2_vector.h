// The vector operations of the kernels with AVX2: registers of 8 floats.
#pragma once

#include "ggml.h"

#include <immintrin.h>

#include <cstdint>

#define KERNEL __attribute__((target("avx2,f16c,fma")))

namespace {

constexpr const char * INSTRUCTION_SET = "AVX2";
constexpr int64_t LANES = 8;
using Floats = __m256;
// A 32-bit word in each lane, with the operators of integers.
using Words = uint32_t __attribute__((vector_size(32)));
using SignedWords = int32_t __attribute__((vector_size(32)));

KERNEL inline Floats load(const float * aligned) { return _mm256_load_ps(aligned); }

// The same for several operations: the compiler would read the numbers again for each, and a processor reads two registers in a
// cycle at best.
KERNEL inline Floats load_once(const float * aligned) {
    Floats numbers = load(aligned);
    asm("" : "+x"(numbers));
    return numbers;
}

KERNEL inline Floats load_unaligned(const float * numbers) { return _mm256_loadu_ps(numbers); }

KERNEL inline void store(float * aligned, Floats a) { _mm256_store_ps(aligned, a); }

KERNEL inline void store_unaligned(float * numbers, Floats a) { _mm256_storeu_ps(numbers, a); }

KERNEL inline float to_float(ggml_fp16_t half) { return _cvtsh_ss(half); }

KERNEL inline Floats load_halves(const ggml_fp16_t * numbers) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i *>(numbers)));
}

// Numbers in bfloat16: the upper half of a float.
KERNEL inline Floats load_brain_halves(const ggml_bf16_t * numbers) {
    const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i *>(numbers));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
}

// As many bytes as there are lanes, each in one.
KERNEL inline Words load_bytes(const uint8_t * bytes) {
    return Words(_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i *>(bytes))));
}

KERNEL inline SignedWords load_bytes(const int8_t * bytes) {
    return SignedWords(
        _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i *>(bytes))));
}

KERNEL inline Floats broadcast(float number) { return _mm256_set1_ps(number); }

KERNEL inline Words broadcast(uint32_t word) { return Words{} + word; }

KERNEL inline Floats to_floats(SignedWords a) { return _mm256_cvtepi32_ps(__m256i(a)); }

KERNEL inline Floats add(Floats a, Floats b) { return _mm256_add_ps(a, b); }

KERNEL inline Floats subtract(Floats a, Floats b) { return _mm256_sub_ps(a, b); }

KERNEL inline Floats multiply(Floats a, Floats b) { return _mm256_mul_ps(a, b); }

KERNEL inline Floats divide(Floats a, Floats b) { return _mm256_div_ps(a, b); }

KERNEL inline Floats maximum(Floats a, Floats b) { return _mm256_max_ps(a, b); }

// a * b + c.
KERNEL inline Floats multiply_add(Floats a, Floats b, Floats c) { return _mm256_fmadd_ps(a, b, c); }

// c - a * b.
KERNEL inline Floats subtract_product(Floats c, Floats a, Floats b) {
    return _mm256_fnmadd_ps(a, b, c);
}

// Exchanges each two lanes that are a power of two apart.
template <int64_t DISTANCE>
KERNEL inline Floats exchange_lanes(Floats a) {
    if constexpr (DISTANCE < 4) {
        return _mm256_permute_ps(a, DISTANCE == 1 ? 0xb1 : 0x4e);
    } else {
        return _mm256_permute2f128_ps(a, a, 1);
    }
}

KERNEL inline float horizontal_max(Floats a) {
    __m128 largest = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    largest = _mm_max_ps(largest, _mm_movehl_ps(largest, largest));
    return _mm_cvtss_f32(_mm_max_ss(largest, _mm_movehdup_ps(largest)));
}

// The order in which horizontal_sums() adds lanes: the place of each, where neighbours are added, then pairs of them, and so on.
constexpr int64_t LANE_PLACES[LANES] = {0, 2, 1, 3, 4, 6, 5, 7};

// The sums of the lanes of four registers, but for what combine_sums() adds.
KERNEL inline Floats partial_sums(Floats a, Floats b, Floats c, Floats d) {
    const __m256 ab = _mm256_add_ps(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
    const __m256 cd = _mm256_add_ps(_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d));
    const __m256d first = _mm256_castps_pd(ab), second = _mm256_castps_pd(cd);
    return _mm256_add_ps(_mm256_castpd_ps(_mm256_unpacklo_pd(first, second)),
                         _mm256_castpd_ps(_mm256_unpackhi_pd(first, second)));
}

// Lane 4 i + j of the result is the sum of the lanes of register j that sums[i] was made from.
KERNEL inline Floats combine_sums(const Floats sums[LANES / 4]) {
    return _mm256_add_ps(_mm256_permute2f128_ps(sums[0], sums[1], 0x20),
                         _mm256_permute2f128_ps(sums[0], sums[1], 0x31));
}

// Replaces each byte, at most 15, by that byte of `table`.
KERNEL inline Words look_up(const int8_t table[16], Words bytes) {
    const __m128i entries = _mm_loadu_si128(reinterpret_cast<const __m128i *>(table));
    return Words(_mm256_shuffle_epi8(_mm256_broadcastsi128_si256(entries), __m256i(bytes)));
}

// To the nearest integers, ties to even.
KERNEL inline Floats round_to_nearest(Floats a) {
    return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

// a * 2^exponent in lanes where x > lower_bound or x is NaN, 0 in the others. Exponents are integers, and
// the product must be a normal float.
KERNEL inline Floats scale_by_power_of_two(Floats a, Floats exponent, Floats x, float lower_bound) {
    const __m256 above = _mm256_cmp_ps(x, _mm256_set1_ps(lower_bound), _CMP_NLE_UQ);
    const __m256i biased = _mm256_add_epi32(_mm256_cvtps_epi32(exponent), _mm256_set1_epi32(127));
    const __m256 power = _mm256_castsi256_ps(_mm256_slli_epi32(biased, 23));
    return _mm256_and_ps(above, _mm256_mul_ps(a, power));
}

// Whether any lane of `a` is at least `bound` or NaN.
KERNEL inline bool any_reaches(Floats a, float bound) {
    return _mm256_movemask_ps(_mm256_cmp_ps(a, _mm256_set1_ps(bound), _CMP_NLT_UQ)) != 0;
}

// Numbers from 0 to 1 in units of 2^-30, each rounded to one; two of them added in each lane.
using Longs = int64_t __attribute__((vector_size(32)));

KERNEL inline Longs fixed_point(Floats a) {
    const __m256i units = _mm256_cvtps_epi32(_mm256_mul_ps(a, _mm256_set1_ps(1 << 30)));
    const __m256i zero = _mm256_setzero_si256();
    return Longs(_mm256_unpacklo_epi32(units, zero)) + Longs(_mm256_unpackhi_epi32(units, zero));
}

// 8 numbers in half precision.
using Halves = __m128i;

// The larger one of each place, without its sign; compared as integers, whose order is the same.
KERNEL inline Halves larger_magnitudes(Halves largest, const ggml_fp16_t * halves) {
    const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i *>(halves));
    return _mm_max_epu16(largest, _mm_and_si128(bits, _mm_set1_epi16(0x7fff)));
}

KERNEL inline Floats to_floats(Halves halves) { return _mm256_cvtph_ps(halves); }

// A bit for each of 8 halves: whether its bits differ from `value`.
KERNEL inline unsigned not_equal(const ggml_fp16_t * halves, uint16_t value) {
    const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i *>(halves));
    const __m128i equal = _mm_cmpeq_epi16(bits, _mm_set1_epi16(int16_t(value)));
    return 0xff & ~_mm_movemask_epi8(_mm_packs_epi16(equal, equal));
}

// The largest absolute value of 32 numbers, or NaN if there is one. The bits of absolute values, compared
// as integers, have the same order, with NaN above infinity.
KERNEL inline float absmax(const float * numbers) {
    __m256i largest = _mm256_setzero_si256();
    for (int i = 0; i < 32; i += 8) {
        const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i *>(numbers + i));
        const __m256i magnitudes = _mm256_and_si256(bits, _mm256_set1_epi32(0x7fffffff));
        largest = _mm256_max_epi32(largest, magnitudes);
    }
    __m128i four = _mm_max_epi32(_mm256_castsi256_si128(largest), _mm256_extracti128_si256(largest, 1));
    four = _mm_max_epi32(four, _mm_unpackhi_epi64(four, four));
    four = _mm_max_epi32(four, _mm_shuffle_epi32(four, 1));
    return _mm_cvtss_f32(_mm_castsi128_ps(four));
}

// Quantizes 32 numbers to bytes, quant = round(number * inverse_scale), and returns the sum of the quants.
KERNEL inline int32_t quantize_to_int8(const float * numbers, float inverse_scale, void * quants) {
    __m256i eights[4];
    for (int i = 0; i < 4; i++) {
        const __m256 scaled = _mm256_mul_ps(_mm256_loadu_ps(numbers + 8 * i), broadcast(inverse_scale));
        eights[i] = _mm256_cvtps_epi32(scaled);
    }
    const __m256i lower = _mm256_packs_epi32(eights[0], eights[1]);
    const __m256i upper = _mm256_packs_epi32(eights[2], eights[3]);
    // Packing works within each half of a register, which leaves the words of both halves interleaved.
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    const __m256i packed = _mm256_permutevar8x32_epi32(_mm256_packs_epi16(lower, upper), order);
    _mm256_storeu_si256(static_cast<__m256i *>(quants), packed);
    const __m256i pairs = _mm256_madd_epi16(_mm256_add_epi16(lower, upper), _mm256_set1_epi16(1));
    __m128i sum = _mm_add_epi32(_mm256_castsi256_si128(pairs), _mm256_extracti128_si256(pairs, 1));
    sum = _mm_add_epi32(sum, _mm_unpackhi_epi64(sum, sum));
    return _mm_cvtsi128_si32(_mm_add_epi32(sum, _mm_shuffle_epi32(sum, 1)));
}

}  // namespace
