// Super-blocks of single rows, those of codebooks apart, in registers of AVX2: quants stay beside each other as they lie.
// super_blocks.h says where formats have what.
#pragma once

#include <cstddef>
#include <cstring>

#include "super_blocks.h"
#include "x86_rows.h"

namespace {

constexpr int ROW_REGISTERS = SUPER_BLOCK_SIZE / 32;  // of the quants of a super-block

KERNEL inline __m256i load_32(const void * bytes) {
    return _mm256_loadu_si256(static_cast<const __m256i *>(bytes));
}

// The bits of `mask` in each byte, once the bytes are shifted to the left, or to the right if `shift` is negative.
KERNEL inline __m256i bits(__m256i bytes, int shift, int mask) {
    const __m256i shifted = shift < 0 ? _mm256_srli_epi16(bytes, -shift) : _mm256_slli_epi16(bytes, shift);
    return _mm256_and_si256(shifted, _mm256_set1_epi8(char(mask)));
}

// Quants 32 * INDEX to 32 * INDEX + 31 of a super-block.
template <int INDEX>
KERNEL inline __m256i unpack_quants(const block_q4_K & block) {
    return bits(load_32(block.qs + INDEX / 2 * 32), INDEX % 2 * -4, 15);
}

template <int INDEX>
KERNEL inline __m256i unpack_quants(const block_q5_K & block) {
    const __m256i lower = bits(load_32(block.qs + INDEX / 2 * 32), INDEX % 2 * -4, 15);
    return _mm256_or_si256(lower, bits(load_32(block.qh), 4 - INDEX, 16));
}

template <int INDEX>
KERNEL inline __m256i unpack_quants(const block_q6_K & block) {
    constexpr int HALF = INDEX / 4, GROUP = INDEX % 4;
    const __m256i lower = bits(load_32(block.ql + 64 * HALF + GROUP % 2 * 32), GROUP / 2 * -4, 15);
    return _mm256_or_si256(lower, bits(load_32(block.qh + 32 * HALF), 4 - 2 * GROUP, 0x30));
}

template <int INDEX>
KERNEL inline __m256i unpack_quants(const block_q2_K & block) {
    return bits(load_32(block.qs + INDEX / 4 * 32), INDEX % 4 * -2, 3);
}

template <int INDEX>
KERNEL inline __m256i unpack_quants(const block_q3_K & block) {
    const __m256i lower = bits(load_32(block.qs + INDEX / 4 * 32), INDEX % 4 * -2, 3);
    return _mm256_or_si256(lower, bits(load_32(block.hmask), 2 - INDEX, 4));
}

// The scales of the sub-blocks of a row and, of formats with them, the minimums, 16 bits for each. Eight are there twice, so
// that both halves of a register have them.
struct RowScales {
    __m256i scales, minimums;
};

// As unpack_scales_and_minimums() of super_blocks.h has them.
template <typename Block>
KERNEL inline RowScales unpack_scales_and_minimums(const Block & block) {
    const auto words = [](int a, int b, int c, int d) KERNEL { return _mm_setr_epi32(a, b, c, d); };
    constexpr int SIX_BITS = in_every_byte(63), UPPER_BITS = in_every_byte(0x30);
    const __m128i head = load_16(&block);
    // Scales 0 to 3 and 4 to 7, then the minimums.
    const __m128i lower = _mm_and_si128(_mm_srlv_epi32(_mm_shuffle_epi32(head, _MM_SHUFFLE(3, 2, 3, 1)), words(0, 0, 0, 4)),
                                        words(SIX_BITS, NIBBLES, SIX_BITS, NIBBLES));
    const __m128i upper = _mm_and_si128(_mm_srli_epi32(_mm_shuffle_epi32(head, _MM_SHUFFLE(2, 2, 1, 1)), 2),
                                        words(0, UPPER_BITS, 0, UPPER_BITS));
    const __m128i bytes = _mm_or_si128(lower, upper);
    return {_mm256_broadcastsi128_si256(_mm_cvtepu8_epi16(bytes)),
            _mm256_zextsi128_si256(_mm_unpackhi_epi8(bytes, _mm_setzero_si128()))};
}

KERNEL inline RowScales unpack_scales(const block_q4_K & block) { return unpack_scales_and_minimums(block); }

KERNEL inline RowScales unpack_scales(const block_q5_K & block) { return unpack_scales_and_minimums(block); }

KERNEL inline RowScales unpack_scales(const block_q2_K & block) {
    const __m128i both = load_16(block.scales), nibbles = _mm_set1_epi8(15);
    return {_mm256_cvtepu8_epi16(_mm_and_si128(both, nibbles)),
            _mm256_cvtepu8_epi16(_mm_and_si128(_mm_srli_epi16(both, 4), nibbles))};
}

KERNEL inline RowScales unpack_scales(const block_q6_K & block) {
    return {_mm256_cvtepi8_epi16(load_16(block.scales)), _mm256_setzero_si256()};
}

KERNEL inline RowScales unpack_scales(const block_q3_K & block) {
    // Three words of scales, and the word before them.
    const __m128i words = load_16(block.scales - sizeof(uint32_t));
    const __m128i lower = _mm_and_si128(
        _mm_srlv_epi32(_mm_shuffle_epi32(words, _MM_SHUFFLE(2, 1, 2, 1)), _mm_setr_epi32(0, 0, 4, 4)), _mm_set1_epi8(15));
    const __m128i last = _mm_shuffle_epi32(words, _MM_SHUFFLE(3, 3, 3, 3));
    const __m128i shifted = _mm_srlv_epi32(_mm_sllv_epi32(last, _mm_setr_epi32(4, 2, 0, 0)), _mm_setr_epi32(0, 0, 0, 2));
    const __m128i upper = _mm_and_si128(shifted, _mm_set1_epi8(0x30));
    return {_mm256_cvtepi8_epi16(_mm_sub_epi8(_mm_or_si128(lower, upper), _mm_set1_epi8(32))), _mm256_setzero_si256()};
}

// Where, in half a register of scales, the two bytes of the scale are that two neighbouring quants have.
template <typename Block>
struct PlacesOfScales {
    alignas(32) uint8_t bytes[ROW_REGISTERS][32] = {};

    constexpr PlacesOfScales() {
        for (int quant = 0; quant < SUPER_BLOCK_SIZE; quant++) {
            bytes[quant / 32][quant % 32] = 2 * (quant / Format<Block>::SUB_BLOCK_SIZE % 8) + quant % 2;
        }
    }
};

template <typename Block>
constexpr PlacesOfScales<Block> PLACES_OF_SCALES;

// A scale of 16 bits for each two quants of register INDEX.
template <typename Block, int INDEX>
KERNEL inline __m256i scales_of_quants(const RowScales & row) {
    constexpr bool HAS_TWO_HALVES = SUB_BLOCKS<Block> > 8;
    constexpr int HALF = HAS_TWO_HALVES ? INDEX / (ROW_REGISTERS / 2) : 0;
    const __m256i half = HAS_TWO_HALVES ? _mm256_permute2x128_si256(row.scales, row.scales, 0x11 * HALF) : row.scales;
    const auto * places = reinterpret_cast<const __m256i *>(PLACES_OF_SCALES<Block>.bytes[INDEX]);
    return _mm256_shuffle_epi8(half, _mm256_load_si256(places));
}

}  // namespace
