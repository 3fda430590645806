/* Products of blocks of 32 with one token, row by row, in registers of AVX-512: four blocks of a row at a time, each in a
 * quarter of a register, of four rows that are read together (row_streams.h). Otherwise a row is in each lane
 * (avx512_weights.h). Dot products are integers there and here, and the floats that follow are computed in the same order:
 * results are the same to the bit.
 */
#pragma once

#include <cstddef>
#include <cstring>

#include "avx512_row_blocks.h"
#include "mul_mat_blocks.h"

namespace {

// Quarter i has 16 bytes of the i-th of COUNT blocks, `stride` bytes apart; the others are zero.
template <int COUNT>
KERNEL inline __m512i load_quarters(const void * first, int64_t stride) {
    const auto quarter = [&](int i) KERNEL { return load_16(static_cast<const char *>(first) + i * stride); };
    __m512i quarters = _mm512_zextsi128_si512(quarter(0));
    if constexpr (COUNT > 1) {
        quarters = _mm512_inserti32x4(quarters, quarter(1), 1);
    }
    if constexpr (COUNT > 2) {
        quarters = _mm512_inserti32x4(quarters, quarter(2), 2);
    }
    if constexpr (COUNT > 3) {
        quarters = _mm512_inserti32x4(quarters, quarter(3), 3);
    }
    return quarters;
}

// The quants of neighbouring blocks of a row, unsigned: 0 to 15 of each in `lower`, 16 to 31 in `upper`.
struct RowQuants {
    __m512i lower, upper;
};

// Adds 16 to each quant whose fifth bit is set.
template <typename Block, int COUNT>
KERNEL inline void add_fifth_bits(const Block * blocks, RowQuants & quants) {
    uint64_t lower = 0, upper = 0;
    for (int i = 0; i < COUNT; i++) {
        uint32_t bits;
        memcpy(&bits, blocks[i].qh, sizeof bits);
        lower |= uint64_t(bits & 0xffff) << 16 * i;
        upper |= uint64_t(bits >> 16) << 16 * i;
    }
    const __m512i sixteen = _mm512_set1_epi8(16);
    quants.lower = _mm512_mask_add_epi8(quants.lower, lower, quants.lower, sixteen);
    quants.upper = _mm512_mask_add_epi8(quants.upper, upper, quants.upper, sixteen);
}

template <typename Block, int COUNT>
KERNEL inline RowQuants unpack_row(const Block * blocks) {
    const __m512i bytes = load_quarters<COUNT>(blocks->qs, sizeof *blocks), nibbles = _mm512_set1_epi8(15);
    if constexpr (IS_Q8_0<Block>) {
        const __m512i sign = _mm512_set1_epi8(char(0x80));
        const __m512i upper = load_quarters<COUNT>(blocks->qs + 16, sizeof *blocks);
        return {_mm512_xor_si512(bytes, sign), _mm512_xor_si512(upper, sign)};
    }
    RowQuants quants{_mm512_and_si512(bytes, nibbles), _mm512_and_si512(_mm512_srli_epi16(bytes, 4), nibbles)};
    if constexpr (HAS_FIFTH_BITS<Block>) {
        add_fifth_bits<Block, COUNT>(blocks, quants);
    } else if constexpr (HAS_CODEBOOK<Block>) {
        const __m512i codebook = _mm512_broadcast_i32x4(load_16(CODEBOOK<Block>.quants));
        quants = {_mm512_shuffle_epi8(codebook, quants.lower), _mm512_shuffle_epi8(codebook, quants.upper)};
    }
    return quants;
}

// Scales and offsets of COUNT blocks of each row, those of a block in a quarter: weight = scale * quant + offset.
struct RowScalesOfBlocks {
    Floats scales, offsets;
};

template <typename Block, int COUNT>
KERNEL inline RowScalesOfBlocks load_row_scales(const char * first, int64_t stride) {
    const auto heads = [&](int row) KERNEL {
        uint32_t words[4] = {};
        for (int i = 0; i < COUNT; i++) {
            memcpy(&words[i], first + row * stride + i * sizeof(Block), sizeof words[i]);
        }
        return _mm_setr_epi32(words[0], words[1], words[2], words[3]);
    };
    __m512i rows = _mm512_zextsi128_si512(heads(0));
    rows = _mm512_inserti32x4(rows, heads(1), 1);
    rows = _mm512_inserti32x4(rows, heads(2), 2);
    rows = _mm512_inserti32x4(rows, heads(3), 3);
    const __m512i by_block = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    const Words words = Words(_mm512_permutexvar_epi32(by_block, rows));
    if constexpr (IS_MXFP4<Block>) {
        const Floats scales = powers_of_two(words & 0xff);
        return {scales, multiply(scales, broadcast(-float(CODEBOOK_OFFSET<Block>)))};
    }
    const Floats scales = half_to_float(words);
    if constexpr (HAS_MINIMUM<Block>) {
        return {scales, half_to_float(words >> 16)};
    }
    constexpr int OFFSET = IS_Q8_0<Block>          ? 128
                           : HAS_CODEBOOK<Block>   ? CODEBOOK_OFFSET<Block>
                           : HAS_FIFTH_BITS<Block> ? 16
                                                   : 8;
    return {scales, multiply(scales, broadcast(-float(OFFSET)))};
}

// Adds to `sum`, of a row in each lane, the products of COUNT blocks of each row. A call would keep it in memory.
template <typename Block, int COUNT>
KERNEL __attribute__((always_inline)) inline void add_blocks(const char * first, int64_t stride,
                                                             const ActivationBlock * activations, __m128 & sum) {
    const __m512i lower = load_quarters<COUNT>(activations->quants, sizeof *activations);
    const __m512i upper = load_quarters<COUNT>(activations->quants + 4, sizeof *activations);
    __m512i of_rows[ROWS_TOGETHER];
#pragma GCC unroll 4
    for (int r = 0; r < ROWS_TOGETHER; r++) {
        const char * blocks = first + r * stride;
        prefetch_stream<Block, COUNT>(blocks);
        const RowQuants quants = unpack_row<Block, COUNT>(reinterpret_cast<const Block *>(blocks));
        of_rows[r] = _mm512_dpbusd_epi32(_mm512_setzero_si512(), quants.lower, lower);
        of_rows[r] = _mm512_dpbusd_epi32(of_rows[r], quants.upper, upper);
    }
    const RowScalesOfBlocks weights = load_row_scales<Block, COUNT>(first, stride);
    const Floats dots = _mm512_cvtepi32_ps(sums_of_quarters(of_rows));
    // As add_block() does.
    const auto add = [&](auto i) KERNEL {
        if constexpr (i < COUNT) {
            const __m128 scale = _mm_mul_ps(_mm512_extractf32x4_ps(weights.scales, i), _mm_set1_ps(activations[i].scale));
            sum = _mm_fmadd_ps(scale, _mm512_extractf32x4_ps(dots, i), sum);
            sum = _mm_fmadd_ps(_mm512_extractf32x4_ps(weights.offsets, i), _mm_set1_ps(activations[i].scaled_sum), sum);
        }
    };
    add(std::integral_constant<int, 0>());
    add(std::integral_constant<int, 1>());
    add(std::integral_constant<int, 2>());
    add(std::integral_constant<int, 3>());
}

// Sets results[0][r] to the product of row r with the token; rows lie `stride` bytes apart from `first` on.
template <typename Block, int TOKENS>
KERNEL __attribute__((noinline)) void multiply_rows(const char * first, int64_t stride, int64_t blocks,
                                                    const ActivationBlock * activations, __m128 * results) {
    static_assert(TOKENS == 1);
    constexpr int64_t TOGETHER = 4;
    __m128 sum = _mm_setzero_ps();
    int64_t block = 0;
    for (; block + TOGETHER <= blocks; block += TOGETHER) {
        add_blocks<Block, TOGETHER>(first + block * sizeof(Block), stride, activations + block, sum);
    }
    for (; block < blocks; block++) {
        add_blocks<Block, 1>(first + block * sizeof(Block), stride, activations + block, sum);
    }
    results[0] = sum;
}

}  // namespace
