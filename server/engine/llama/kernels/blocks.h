// Formats of quantized weights in blocks of 32: Q4_0, Q4_1, Q5_0, Q5_1 and Q8_0 (ggml-common.h).
#pragma once

#define GGML_COMMON_DECL_CPP
#include <cstdint>
#include <type_traits>

#include "ggml-common.h"

namespace {

constexpr int64_t BLOCK_SIZE = 32;

template <typename Block>
constexpr bool IS_Q8_0 = std::is_same_v<Block, block_q8_0>;

// weight = scale * quant + minimum. The other formats have quants around zero: weight = scale * quant.
template <typename Block>
constexpr bool HAS_MINIMUM = std::is_same_v<Block, block_q4_1> || std::is_same_v<Block, block_q5_1>;

// Quants have five bits; a field of its own holds the fifth, highest one.
template <typename Block>
constexpr bool HAS_FIFTH_BITS = std::is_same_v<Block, block_q5_0> || std::is_same_v<Block, block_q5_1>;

}  // namespace
