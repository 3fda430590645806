// Reads 32-bit words of 8 rows of weights, and multiplies their bytes, with NEON.
#pragma once

#include <cstring>
#include <type_traits>

#include "neon_vector.h"

namespace {

// So many panels, those of blocks of 32 apart, and tokens are multiplied together: their sums stay in registers.
constexpr int PANELS_TOGETHER = 1, TOKENS_TOGETHER = 4, BLOCK_PANELS_TOGETHER = 1;

// Only AVX-512 has a way of its own for few tokens and quantized weights.
constexpr int SUPER_TOKENS_BY_ROWS = 0, CODEBOOK_TOKENS_BY_ROWS = 0, BLOCK_TOKENS_BY_ROWS = 0;

// Reads four words of each of four rows. Number r of words[i] becomes word i of row r.
KERNEL inline void transpose_four(const char * first, int64_t stride, uint32x4_t words[4]) {
    uint64x2_t even[2], odd[2];  // words of two rows in turns: 0 and 2, 1 and 3
    for (int i = 0; i < 2; i++) {
        const char * row = first + 2 * i * stride;
        const uint32x4_t a = vreinterpretq_u32_u8(vld1q_u8(reinterpret_cast<const uint8_t *>(row)));
        const uint32x4_t b =
            vreinterpretq_u32_u8(vld1q_u8(reinterpret_cast<const uint8_t *>(row + stride)));
        even[i] = vreinterpretq_u64_u32(vtrn1q_u32(a, b));
        odd[i] = vreinterpretq_u64_u32(vtrn2q_u32(a, b));
    }
    words[0] = vreinterpretq_u32_u64(vzip1q_u64(even[0], even[1]));
    words[1] = vreinterpretq_u32_u64(vzip1q_u64(odd[0], odd[1]));
    words[2] = vreinterpretq_u32_u64(vzip2q_u64(even[0], even[1]));
    words[3] = vreinterpretq_u32_u64(vzip2q_u64(odd[0], odd[1]));
}

// Reads `COUNT` words of each row; rows lie `stride` bytes apart from `first` on. Lane r of words[i] becomes
// word i of row r. Reads nothing else: memory after the last row may be unmapped.
template <int COUNT>
KERNEL inline void load_words(const char * first, int64_t stride, Words * words) {
    static_assert(COUNT % 4 == 0);
    for (int start = 0; start < COUNT; start += 4, first += 16, words += 4) {
        uint32x4_t lower[4], upper[4];
        transpose_four(first, stride, lower);
        transpose_four(first + 4 * stride, stride, upper);
        for (int i = 0; i < 4; i++) {
            words[i] = {lower[i], upper[i]};
        }
    }
}

template <>
KERNEL inline void load_words<1>(const char * first, int64_t stride, Words * words) {
    uint32_t row_words[LANES];
    for (int row = 0; row < LANES; row++) {
        memcpy(&row_words[row], first + row * stride, sizeof row_words[row]);
    }
    *words = {vld1q_u32(row_words), vld1q_u32(row_words + 4)};
}

// The lower 16 bits of each word, a half-precision number, as a float.
KERNEL inline Floats half_to_float(Words words) {
    return to_floats(vcombine_u16(vmovn_u32(words.lower), vmovn_u32(words.upper)));
}

// Adds 16 to each quant whose fifth bit is set. Bit i of a lane belongs to quant i of its row.
KERNEL inline void add_fifth_bits(Words fifth_bits, Words quants[8]) {
    for (int i = 0; i < 8; i++) {
        // The product has the four bits, from bit 4 on, 7 bits apart: each in a byte of its own.
        const Words four_bits = fifth_bits >> 4 * i & 15;
        quants[i] |= four_bits * (1 << 4 | 1 << 11 | 1 << 18 | 1 << 25) & 0x10101010;
    }
}

using SubBlockScale = SignedWords;

KERNEL inline SubBlockScale sub_block_scale(SignedWords scale) { return scale; }

// The weights of codebooks stay signed, as dot products take them.
constexpr int IQ4_OFFSET = 0, MXFP4_OFFSET = 0;

constexpr bool WIDENS_SIGNED_QUANTS = false;

// Signed quants are unpacked where they are stored.
KERNEL inline void store_signed_quants(const Words *, Words *) {}

// What a dot product starts from, so that quants count from `offset` on. The sums are those of the lower and
// of the upper two bytes of each word of the activations.
inline int32_t start_of_dot_product(int offset, int lower_sum, int upper_sum) {
    return -offset * (lower_sum + upper_sum);
}

// Adds the quants of a sub-block: the lower two bytes of all words, and the upper two.
template <int WORDS>
KERNEL inline void add_quants(const int32_t * quants, int16_t & lower_sum, int16_t & upper_sum) {
    int16x8_t sums = vdupq_n_s16(0);
    for (int i = 0; i < WORDS; i += 4) {
        sums = vpadalq_s8(sums, vreinterpretq_s8_s32(vld1q_s32(quants + i)));
    }
    lower_sum = vaddv_s16(vget_low_s16(vuzp1q_s16(sums, sums)));
    upper_sum = vaddv_s16(vget_low_s16(vuzp2q_s16(sums, sums)));
}

// Adds to each lane the products of its four bytes with those of word `INDEX` of `words`. Quants of all formats fit
// into signed bytes.
template <int INDEX>
KERNEL inline SignedWords add_products(SignedWords sums, Words quants, int32x4_t words) {
    const int8x16_t other = vreinterpretq_s8_s32(words);
    return {vdotq_laneq_s32(sums.lower, vreinterpretq_s8_u32(quants.lower), other, INDEX),
            vdotq_laneq_s32(sums.upper, vreinterpretq_s8_u32(quants.upper), other, INDEX)};
}

// Calls `act` with 0 to 3 as constants, as instructions take the index of a word.
template <typename Act>
KERNEL inline void for_each_of_four(Act act) {
    act(std::integral_constant<int, 0>());
    act(std::integral_constant<int, 1>());
    act(std::integral_constant<int, 2>());
    act(std::integral_constant<int, 3>());
}

}  // namespace
