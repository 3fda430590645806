// Formats of quantized weights in blocks of 32: Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, IQ4_NL and MXFP4 (ggml-common.h).
#pragma once

#define GGML_COMMON_DECL_CPP
#include <cstdint>
#include <type_traits>

#include "ggml-common.h"

namespace {

constexpr int64_t BLOCK_SIZE = 32;

constexpr uint32_t NIBBLES = 0x0f0f0f0f;  // the lower four bits of each byte of a word

constexpr uint32_t in_every_byte(uint32_t bits) { return bits * 0x01010101; }

// The weights that codes stand for, in terms of the scale: IQ4_NL and IQ4_XS, and MXFP4, whose scale is halved.
constexpr int8_t IQ4_CODEBOOK[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                     1,    13,   25,  38,  53,  69,  89,  113};
constexpr int8_t MXFP4_CODEBOOK[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

template <typename Block>
constexpr bool IS_Q8_0 = std::is_same_v<Block, block_q8_0>;

template <typename Block>
constexpr bool IS_MXFP4 = std::is_same_v<Block, block_mxfp4>;

template <typename Block>
constexpr bool HAS_CODEBOOK = std::is_same_v<Block, block_iq4_nl> || IS_MXFP4<Block>;

// weight = scale * quant + minimum. The other formats have quants around zero: weight = scale * quant.
template <typename Block>
constexpr bool HAS_MINIMUM = std::is_same_v<Block, block_q4_1> || std::is_same_v<Block, block_q5_1>;

// Quants have five bits; a field of its own holds the fifth, highest one.
template <typename Block>
constexpr bool HAS_FIFTH_BITS = std::is_same_v<Block, block_q5_0> || std::is_same_v<Block, block_q5_1>;

}  // namespace
