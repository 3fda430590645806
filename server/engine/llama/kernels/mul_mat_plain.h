// Multiplies weights that are plain numbers, in half precision, bfloat16 or single precision. Included after the
// vector operations of an instruction set.
#pragma once

#include <type_traits>

#include "panel.h"

namespace {

constexpr int PLAIN_NUMBERS = 16;

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

// The activations of a token for one block of weights; not quantized.
struct PlainActivations {
    float numbers[PLAIN_NUMBERS];
};

KERNEL inline void quantize(const float * numbers, PlainActivations & activations) {
    memcpy(activations.numbers, numbers, sizeof activations.numbers);
}

KERNEL inline Floats load_numbers(const ggml_fp16_t * numbers) { return load_halves(numbers); }

KERNEL inline Floats load_numbers(const ggml_bf16_t * numbers) { return load_brain_halves(numbers); }

KERNEL inline Floats load_numbers(const float * numbers) { return load_unaligned(numbers); }

// Multiplies `ROWS` rows of weights with the activations of `TOKENS` tokens, which lie `tokens` apart from block to
// block. Products of different columns are in each lane of dots[t][first_row + r]. Their order depends on neither
// number.
template <typename Block, int ROWS, int TOKENS>
KERNEL inline void multiply_plain(const char * weights, int64_t stride, int64_t blocks,
                                  const PlainActivations * activations, int64_t tokens,
                                  Floats (*dots)[PANEL_ROWS], int64_t first_row) {
    Floats sums[TOKENS][ROWS];
    for (int t = 0; t < TOKENS; t++) {
        for (int r = 0; r < ROWS; r++) {
            sums[t][r] = broadcast(0.f);
        }
    }
    for (int64_t block = 0; block < blocks; block++, activations += tokens) {
        for (int64_t i = 0; i < PLAIN_NUMBERS; i += LANES) {
            Floats row[ROWS];
            for (int r = 0; r < ROWS; r++) {
                const char * first = weights + r * stride + block * sizeof(Block);
                row[r] = load_numbers(reinterpret_cast<const Block *>(first)->numbers + i);
            }
            for (int t = 0; t < TOKENS; t++) {
                const Floats other = load_unaligned(activations[t].numbers + i);
                for (int r = 0; r < ROWS; r++) {
                    sums[t][r] = multiply_add(row[r], other, sums[t][r]);
                }
            }
        }
    }
    for (int t = 0; t < TOKENS; t++) {
        for (int r = 0; r < ROWS; r++) {
            dots[t][first_row + r] = sums[t][r];
        }
    }
}

// Adds to sums[0][t] the products of a panel with token t of a tile; a row of the panel is in each lane.
// `activations` holds the tile block by block, and within a block token by token.
template <typename Block, int PANELS>
KERNEL void multiply_panels(const char * panel, int64_t stride, int64_t blocks,
                            const PlainActivations * activations, int64_t tokens,
                            Floats (*sums)[TILE_TOKENS]) {
    static_assert(PANELS == 1);
    constexpr int ROWS = LANES / 4, TOKENS = 4;  // their sums fit into the registers
    Floats dots[TILE_TOKENS][PANEL_ROWS];
    for (int64_t row = 0; row < PANEL_ROWS; row += ROWS) {
        const char * weights = panel + row * stride;
        int64_t token = 0;
        const auto multiply_next = [&](auto count) KERNEL {
            multiply_plain<Block, ROWS, count>(weights, stride, blocks, activations + token, tokens,
                                               dots + token, row);
            token += count;
        };
        while (token + TOKENS <= tokens) {
            multiply_next(std::integral_constant<int, TOKENS>());
        }
        while (token + 2 <= tokens) {
            multiply_next(std::integral_constant<int, 2>());
        }
        if (token < tokens) {
            multiply_next(std::integral_constant<int, 1>());
        }
    }
    for (int64_t token = 0; token < tokens; token++) {
        sums[0][token] = add(sums[0][token], horizontal_sums(dots[token]));
    }
}

}  // namespace
