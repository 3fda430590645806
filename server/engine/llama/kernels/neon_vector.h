// The vector operations of the kernels with NEON: two registers of 4 floats.
#pragma once

#include "ggml.h"

#include <arm_neon.h>

#include <cstdint>

namespace {

constexpr int64_t LANES = 8;

// Two registers as one of twice as many lanes. With 8 lanes, the sums of a product fill most of the 32 registers,
// and additions seldom wait for each other.
template <typename Register, typename Number>
struct Two {
    Register lower, upper;

    Two() = default;
    Two(Register lower, Register upper) : lower(lower), upper(upper) {}
    // The number in each lane.
    Two(Number number)
        : lower{number, number, number, number}, upper{number, number, number, number} {}
    // The same bits as numbers of another kind.
    template <typename OtherRegister, typename Other>
    explicit Two(const Two<OtherRegister, Other> & other)
        : lower(Register(other.lower)), upper(Register(other.upper)) {}

    Number operator[](int64_t lane) const {
        constexpr int64_t half = sizeof(Register) / sizeof(Number);
        return lane < half ? lower[lane] : upper[lane - half];
    }

    friend Two operator~(Two a) { return {~a.lower, ~a.upper}; }
    friend Two operator&(Two a, Two b) { return {a.lower & b.lower, a.upper & b.upper}; }
    friend Two operator|(Two a, Two b) { return {a.lower | b.lower, a.upper | b.upper}; }
    friend Two operator+(Two a, Two b) { return {a.lower + b.lower, a.upper + b.upper}; }
    friend Two operator-(Two a, Two b) { return {a.lower - b.lower, a.upper - b.upper}; }
    friend Two operator*(Two a, Two b) { return {a.lower * b.lower, a.upper * b.upper}; }
    friend Two operator/(Two a, Two b) { return {a.lower / b.lower, a.upper / b.upper}; }
    friend Two operator<<(Two a, int bits) { return {a.lower << bits, a.upper << bits}; }
    friend Two operator>>(Two a, int bits) { return {a.lower >> bits, a.upper >> bits}; }
    // All bits are set where it is true.
    friend Two operator<(Two a, Two b) {
        return {Register(a.lower < b.lower), Register(a.upper < b.upper)};
    }

    Two & operator|=(Two other) { return *this = *this | other; }
    Two & operator+=(Two other) { return *this = *this + other; }
};

using Floats = Two<float32x4_t, float>;
// A 32-bit word in each lane.
using Words = Two<uint32x4_t, uint32_t>;
using SignedWords = Two<int32x4_t, int32_t>;

KERNEL inline Floats load_unaligned(const float * numbers) {
    return {vld1q_f32(numbers), vld1q_f32(numbers + 4)};
}

KERNEL inline Floats load(const float * aligned) { return load_unaligned(aligned); }

// The same for several operations. They read registers alone here.
KERNEL inline Floats load_once(const float * aligned) { return load(aligned); }

KERNEL inline void store_unaligned(float * numbers, Floats a) {
    vst1q_f32(numbers, a.lower);
    vst1q_f32(numbers + 4, a.upper);
}

KERNEL inline void store(float * aligned, Floats a) { store_unaligned(aligned, a); }

// 8 numbers in half precision.
using Halves = uint16x8_t;

KERNEL inline Floats to_floats(Halves halves) {
    const float16x8_t numbers = vreinterpretq_f16_u16(halves);
    return {vcvt_f32_f16(vget_low_f16(numbers)), vcvt_f32_f16(vget_high_f16(numbers))};
}

KERNEL inline Floats load_halves(const ggml_fp16_t * numbers) {
    return to_floats(vld1q_u16(numbers));
}

KERNEL inline float to_float(ggml_fp16_t half) {
    return vgetq_lane_f32(vcvt_f32_f16(vreinterpret_f16_u16(vdup_n_u16(half))), 0);
}

// Numbers in bfloat16: the upper half of a float.
KERNEL inline Floats load_brain_halves(const ggml_bf16_t * numbers) {
    const uint16x8_t bits = vld1q_u16(&numbers->bits);
    return Floats(Words(vshll_n_u16(vget_low_u16(bits), 16), vshll_n_u16(vget_high_u16(bits), 16)));
}

// As many bytes as there are lanes, each in one.
KERNEL inline Words load_bytes(const uint8_t * bytes) {
    const uint16x8_t wide = vmovl_u8(vld1_u8(bytes));
    return {vmovl_u16(vget_low_u16(wide)), vmovl_u16(vget_high_u16(wide))};
}

KERNEL inline SignedWords load_bytes(const int8_t * bytes) {
    const int16x8_t wide = vmovl_s8(vld1_s8(bytes));
    return {vmovl_s16(vget_low_s16(wide)), vmovl_s16(vget_high_s16(wide))};
}

KERNEL inline Floats broadcast(float number) { return number; }

KERNEL inline Words broadcast(uint32_t word) { return word; }

KERNEL inline Floats to_floats(SignedWords a) {
    return {vcvtq_f32_s32(a.lower), vcvtq_f32_s32(a.upper)};
}

KERNEL inline Floats add(Floats a, Floats b) { return a + b; }

KERNEL inline Floats subtract(Floats a, Floats b) { return a - b; }

KERNEL inline Floats multiply(Floats a, Floats b) { return a * b; }

KERNEL inline Floats divide(Floats a, Floats b) { return a / b; }

// The other number where one is NaN: a NaN among scores must not hide the largest of them.
KERNEL inline Floats maximum(Floats a, Floats b) {
    return {vmaxnmq_f32(a.lower, b.lower), vmaxnmq_f32(a.upper, b.upper)};
}

// a * b + c.
KERNEL inline Floats multiply_add(Floats a, Floats b, Floats c) {
    return {vfmaq_f32(c.lower, a.lower, b.lower), vfmaq_f32(c.upper, a.upper, b.upper)};
}

// c - a * b.
KERNEL inline Floats subtract_product(Floats c, Floats a, Floats b) {
    return {vfmsq_f32(c.lower, a.lower, b.lower), vfmsq_f32(c.upper, a.upper, b.upper)};
}

// Exchanges each two lanes that are a power of two apart.
template <int64_t DISTANCE>
KERNEL inline Floats exchange_lanes(Floats a) {
    if constexpr (DISTANCE == 1) {
        return {vrev64q_f32(a.lower), vrev64q_f32(a.upper)};
    } else if constexpr (DISTANCE == 2) {
        return {vextq_f32(a.lower, a.lower, 2), vextq_f32(a.upper, a.upper, 2)};
    } else {
        return {a.upper, a.lower};
    }
}

KERNEL inline float horizontal_max(Floats a) { return vmaxvq_f32(vmaxq_f32(a.lower, a.upper)); }

// The sums of the numbers of each of four registers.
KERNEL inline float32x4_t sums_of_four(float32x4_t a, float32x4_t b, float32x4_t c, float32x4_t d) {
    return vpaddq_f32(vpaddq_f32(a, b), vpaddq_f32(c, d));
}

// The order in which horizontal_sums() adds lanes: the place of each, where neighbours are added, then pairs of them, and so on.
constexpr int64_t LANE_PLACES[LANES] = {0, 2, 4, 6, 1, 3, 5, 7};

// The sums of the lanes of four registers, as combine_sums() takes them.
KERNEL inline Floats partial_sums(Floats a, Floats b, Floats c, Floats d) {
    const float32x4_t sums = sums_of_four(a.lower + a.upper, b.lower + b.upper, c.lower + c.upper, d.lower + d.upper);
    return {sums, sums};
}

// Lane 4 i + j of the result is the sum of the lanes of register j that sums[i] was made from.
KERNEL inline Floats combine_sums(const Floats sums[LANES / 4]) { return {sums[0].lower, sums[1].lower}; }

// Replaces each byte, at most 15, by that byte of `table`.
KERNEL inline Words look_up(const int8_t table[16], Words bytes) {
    const uint8x16_t entries = vreinterpretq_u8_s8(vld1q_s8(table));
    return {uint32x4_t(vqtbl1q_u8(entries, uint8x16_t(bytes.lower))),
            uint32x4_t(vqtbl1q_u8(entries, uint8x16_t(bytes.upper)))};
}

// To the nearest integers, ties to even.
KERNEL inline Floats round_to_nearest(Floats a) { return {vrndnq_f32(a.lower), vrndnq_f32(a.upper)}; }

KERNEL inline SignedWords nearest_integers(Floats a) {
    return {vcvtnq_s32_f32(a.lower), vcvtnq_s32_f32(a.upper)};
}

// a * 2^exponent in lanes where x > lower_bound or x is NaN, 0 in the others. Exponents are integers, and
// the product must be a normal float.
KERNEL inline Floats scale_by_power_of_two(Floats a, Floats exponent, Floats x, float lower_bound) {
    const float32x4_t bound = vdupq_n_f32(lower_bound);
    const Words below(vcleq_f32(x.lower, bound), vcleq_f32(x.upper, bound));
    const Floats power = Floats((nearest_integers(exponent) + 127) << 23);
    return Floats(Words(a * power) & ~below);
}

// Whether any lane of `a` is at least `bound` or NaN.
KERNEL inline bool any_reaches(Floats a, float bound) {
    const float32x4_t bounds = vdupq_n_f32(bound);
    return vminvq_u32(vcltq_f32(a.lower, bounds) & vcltq_f32(a.upper, bounds)) == 0;
}

// Numbers from 0 to 1 in units of 2^-30, each rounded to one; two of them added in each lane. A NaN counts as
// 1.5, which no weight reaches: a token whose weights are all NaN must not look like one that sees no cell.
using Longs = Two<int64x2_t, int64_t>;

KERNEL inline Longs fixed_point(Floats a) {
    const float32x4_t bound = vdupq_n_f32(1.5f);
    const Floats numbers(vminnmq_f32(a.lower, bound), vminnmq_f32(a.upper, bound));
    const SignedWords units = nearest_integers(multiply(numbers, broadcast(float(1 << 30))));
    return {vpaddlq_s32(units.lower), vpaddlq_s32(units.upper)};
}

// The larger one of each place, without its sign; compared as integers, whose order is the same.
KERNEL inline Halves larger_magnitudes(Halves largest, const ggml_fp16_t * halves) {
    return vmaxq_u16(largest, vandq_u16(vld1q_u16(halves), vdupq_n_u16(0x7fff)));
}

// A bit for each of 8 halves: whether its bits differ from `value`.
KERNEL inline unsigned not_equal(const ggml_fp16_t * halves, uint16_t value) {
    const uint16x8_t equal = vceqq_u16(vld1q_u16(halves), vdupq_n_u16(value));
    const uint16x8_t bits = {1, 2, 4, 8, 16, 32, 64, 128};
    return vaddvq_u16(vbicq_u16(bits, equal));
}

// The largest absolute value of 32 numbers, or NaN if there is one. The bits of absolute values, compared
// as integers, have the same order, with NaN above infinity.
KERNEL inline float absmax(const float * numbers) {
    uint32x4_t largest = vdupq_n_u32(0);
    for (int i = 0; i < 32; i += 4) {
        const uint32x4_t bits = vreinterpretq_u32_f32(vld1q_f32(numbers + i));
        largest = vmaxq_u32(largest, vandq_u32(bits, vdupq_n_u32(0x7fffffff)));
    }
    return vgetq_lane_f32(vreinterpretq_f32_u32(vdupq_n_u32(vmaxvq_u32(largest))), 0);
}

// Quantizes 32 numbers to bytes, quant = round(number * inverse_scale), and returns the sum of the quants.
KERNEL inline int32_t quantize_to_int8(const float * numbers, float inverse_scale, void * quants) {
    const Floats factor = broadcast(inverse_scale);
    int32_t sum = 0;
    for (int i = 0; i < 32; i += 8) {
        const SignedWords words = nearest_integers(load_unaligned(numbers + i) * factor);
        const int16x8_t eight = vcombine_s16(vqmovn_s32(words.lower), vqmovn_s32(words.upper));
        vst1_s8(static_cast<int8_t *>(quants) + i, vqmovn_s16(eight));
        sum += vaddvq_s16(eight);
    }
    return sum;
}

}  // namespace
