// Dot products of blocks of weights with activations, in registers of NEON.
#pragma once

#include "neon_words.h"
#include "block_weights.h"

namespace {

// Each row's dot product of quants with those of the activations, four in a word.
template <typename Block>
KERNEL inline Floats dot_products(const WeightBlocks & blocks, const int32_t activations[8]) {
    const int32x4_t first = vld1q_s32(activations), second = vld1q_s32(activations + 4);
    SignedWords first_half = 0, second_half = 0;
    for_each_of_four([&](auto i) KERNEL {
        first_half = add_products<i>(first_half, blocks.quants[i], first);
        second_half = add_products<i>(second_half, blocks.quants[i + 4], second);
    });
    return to_floats(first_half + second_half);
}

}  // namespace
