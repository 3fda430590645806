// The formats of weights in blocks of 32 numbers.
#pragma once

#define GGML_COMMON_DECL_CPP
#include <cstdint>
#include <type_traits>

#include "ggml-common.h"

namespace {

constexpr int64_t BLOCK = 32;

template <typename Block>
constexpr bool IS_BYTES = std::is_same_v<Block, block_q8_0>;

// weight = scale * quant + minimum; without one quants stand for numbers around zero.
template <typename Block>
constexpr bool HAS_MINIMUM = std::is_same_v<Block, block_q4_1> || std::is_same_v<Block, block_q5_1>;

// Quants have five bits, the highest of which are in a field of their own.
template <typename Block>
constexpr bool HAS_FIFTH_BITS = std::is_same_v<Block, block_q5_0> || std::is_same_v<Block, block_q5_1>;

}  // namespace
