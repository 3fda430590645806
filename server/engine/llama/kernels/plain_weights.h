// Weights that are plain numbers: in half precision, bfloat16 or single precision.
#pragma once

#include <type_traits>

namespace {

// Neighbouring weights of a row.
template <typename Number>
struct PlainBlock {
    Number numbers[PLAIN_NUMBERS];
};

using HalfBlock = PlainBlock<ggml_fp16_t>;
using BrainBlock = PlainBlock<ggml_bf16_t>;
using SingleBlock = PlainBlock<float>;

template <typename Block>
constexpr bool IS_PLAIN = std::is_same_v<Block, HalfBlock> || std::is_same_v<Block, BrainBlock> ||
                          std::is_same_v<Block, SingleBlock>;

KERNEL inline Floats load_numbers(const ggml_fp16_t * numbers) { return load_halves(numbers); }

KERNEL inline Floats load_numbers(const ggml_bf16_t * numbers) { return load_brain_halves(numbers); }

KERNEL inline Floats load_numbers(const float * numbers) { return load_unaligned(numbers); }

}  // namespace
