// Multiplies weights that are plain numbers, in half precision, bfloat16 or single precision. Included after the
// vector operations of an instruction set.
#pragma once

#include <algorithm>
#include <type_traits>

#include "panel.h"

namespace {

constexpr int PLAIN_NUMBERS = 16, PLAIN_PANELS = 1;
constexpr int64_t PLACED_TOGETHER = 1;  // rows of activations

}  // namespace

#include "plain_weights.h"

namespace {

// The activations of a token for one block of weights, not quantized: a cache line, which a register reads at once.
struct alignas(64) PlainActivations {
    float numbers[PLAIN_NUMBERS];
};

// The sums of a group of tokens fit into the registers, beside one for each row and one for a token.
constexpr int PLAIN_ROWS = LANES / 4, GROUP_TOKENS = 6;
constexpr int64_t PLAIN_TILE_TOKENS = 32 * GROUP_TOKENS;  // their sums take 12 KB with AVX-512
// Columns that are multiplied before the next ones. The activations of a group, the weights that they are multiplied
// with and the sums then stay in the L1 cache.
constexpr int64_t PLAIN_COLUMNS = 512;

// Puts `count` rows of activations, from row `first` of all `rows` on, into their places. Those of a group lie
// together, [block][token]: rows at a distance of pages would share few places of a cache.
template <typename Block>
KERNEL inline void place_plain(const float * const * numbers, int64_t first, int64_t count, int64_t rows,
                               int64_t blocks, PlainActivations * activations) {
    for (int64_t i = 0; i < count; i++) {
        const int64_t token = (first + i) % GROUP_TOKENS, group = first + i - token;
        const int64_t width = std::min<int64_t>(GROUP_TOKENS, rows - group);
        PlainActivations * place = activations + group * blocks + token;
        for (int64_t block = 0; block < blocks; block++) {
            memcpy(place + block * width, numbers[i] + block * PLAIN_NUMBERS, sizeof *place);
        }
    }
}

// Sums of the products of a group's tokens with the rows of a panel: those of different columns are in each lane.
using Dots = Floats[GROUP_TOKENS][PANEL_ROWS];

// Multiplies blocks of ROWS rows of weights, from `row` of a panel on, and of the TOKENS tokens of a group. The products
// are added to dots[token][row], or begin them; their order depends on nothing but the number of columns. Prefetches as
// many numbers from `next` on.
template <typename Number, int ROWS, int TOKENS>
KERNEL inline void multiply_group(const char * weights, int64_t stride, int64_t blocks, bool begins,
                                  const PlainActivations * activations, int64_t row, Dots & dots,
                                  const char * next) {
    Floats sums[TOKENS][ROWS];
#pragma GCC unroll 6
    for (int t = 0; t < TOKENS; t++) {
#pragma GCC unroll 4
        for (int r = 0; r < ROWS; r++) {
            sums[t][r] = begins ? broadcast(0.f) : dots[t][row + r];
        }
    }
    const auto * first = reinterpret_cast<const Number *>(weights + row * stride);
    const int64_t row_numbers = stride / int64_t(sizeof(Number));
    for (int64_t block = 0; block < blocks; block++) {
        __builtin_prefetch(next + block * PLAIN_NUMBERS * int64_t(sizeof(Number)), 0, 2);
#pragma GCC unroll 4
        for (int64_t lane = 0; lane < PLAIN_NUMBERS; lane += LANES) {
            const int64_t column = block * PLAIN_NUMBERS + lane;
            Floats rows[ROWS];
#pragma GCC unroll 4
            for (int r = 0; r < ROWS; r++) {
                rows[r] = load_numbers(first + r * row_numbers + column);
            }
#pragma GCC unroll 6
            for (int t = 0; t < TOKENS; t++) {
                const Floats input = load_unaligned(activations[block * TOKENS + t].numbers + lane);
#pragma GCC unroll 4
                for (int r = 0; r < ROWS; r++) {
                    sums[t][r] = multiply_add(rows[r], input, sums[t][r]);
                }
            }
        }
    }
#pragma GCC unroll 6
    for (int t = 0; t < TOKENS; t++) {
#pragma GCC unroll 4
        for (int r = 0; r < ROWS; r++) {
            dots[t][row + r] = sums[t][r];
        }
    }
}

// As above, for all rows of a panel. A part of the next panel is prefetched meanwhile, from its row `next_row` on: the
// processor does not track as many streams by itself as a panel has rows.
template <typename Number, int TOKENS>
KERNEL void multiply_group(const char * panel, int64_t stride, int64_t blocks,
                           const PlainActivations * activations, int64_t together, int64_t next_row,
                           Dots & dots) {
    const char * next = panel + (PANEL_ROWS + next_row) * stride;
    for (int64_t first = 0; first < blocks; first += together) {
        const int64_t column_bytes = first * PLAIN_NUMBERS * int64_t(sizeof(Number));
        for (int64_t row = 0; row < PANEL_ROWS; row += PLAIN_ROWS) {
            multiply_group<Number, PLAIN_ROWS, TOKENS>(
                panel + column_bytes, stride, std::min(together, blocks - first), first == 0,
                activations + first * TOKENS, row, dots, next + row / PLAIN_ROWS * stride + column_bytes);
        }
    }
}

// Adds to sums[0][t] the products of a panel with token t of a tile; a row of the panel is in each lane.
template <typename Block, int PANELS>
KERNEL void multiply_panels(const char * panel, int64_t stride, int64_t blocks,
                            const PlainActivations * activations, int64_t tokens,
                            Floats (*sums)[PLAIN_TILE_TOKENS]) {
    static_assert(PANELS == 1);
    using Number = std::remove_extent_t<decltype(Block::numbers)>;
    // A group alone reads the weights once, in the order in which they lie.
    const int64_t together = tokens <= GROUP_TOKENS ? blocks : PLAIN_COLUMNS / PLAIN_NUMBERS;
    for (int64_t token = 0; token < tokens; token += GROUP_TOKENS) {
        Dots dots;
        const int64_t next_row = token / GROUP_TOKENS * (PANEL_ROWS / PLAIN_ROWS) % PANEL_ROWS;
        const auto multiply_tokens = [&](auto count) KERNEL {
            multiply_group<Number, count>(panel, stride, blocks, activations + token * blocks, together,
                                          next_row, dots);
            for (int t = 0; t < count; t++) {
                sums[0][token + t] = add(sums[0][token + t], horizontal_sums(dots[t]));
            }
        };
        with_count<GROUP_TOKENS>(tokens - token, multiply_tokens);
    }
}

}  // namespace
