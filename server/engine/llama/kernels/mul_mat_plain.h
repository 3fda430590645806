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

// The activations of a token for one block of weights; not quantized.
struct PlainActivations {
    float numbers[PLAIN_NUMBERS];
};

// Puts `count` rows of activations from row `first` on into their places: row by row.
template <typename Block>
KERNEL inline void place_plain(const float * const * numbers, int64_t first, int64_t count, int64_t,
                               int64_t blocks, PlainActivations * activations) {
    for (int64_t i = 0; i < count; i++) {
        memcpy(activations + (first + i) * blocks, numbers[i], blocks * sizeof *activations);
    }
}

// Their sums fit into the registers, beside one for each row and one for a token.
constexpr int PLAIN_ROWS = LANES / 4, PLAIN_TOKENS = 6;
// Columns that are multiplied before the next ones. The weights of a panel and the activations of PLAIN_TOKENS then
// stay in the L1 cache.
constexpr int64_t PLAIN_COLUMNS = 256;
constexpr int64_t PLAIN_TILE_TOKENS = 64;  // their sums take 64 KB with AVX-512

// Where sums are kept between columns: products of different columns are in each lane of [token][row].
using Dots = Floats (*)[PANEL_ROWS];

// Columns of the activations of a tile; tokens lie `stride` numbers apart.
struct Inputs {
    const float * numbers;
    int64_t stride, tokens;
};

// The same columns of the next panel, which are prefetched meanwhile: the processor does not track as many streams by
// itself as a panel has rows.
struct NextRows {
    const char * first;
    int64_t stride, number_size;

    const char * row(int64_t i) const { return first + i % PANEL_ROWS * stride; }
};

// Multiplies columns of ROWS rows of weights and of TOKENS tokens. The products are added to dots[token + t][row + r],
// or begin it; their order depends on nothing but the number of columns. Prefetches as many numbers from `next` on.
template <typename Number, int ROWS, int TOKENS>
KERNEL inline void multiply_plain(const char * weights, int64_t stride, int64_t columns, bool begins,
                                  const Inputs & inputs, int64_t row, int64_t token, Dots dots,
                                  const char * next, int64_t number_size) {
    const float * numbers = inputs.numbers + token * inputs.stride;
    Floats sums[TOKENS][ROWS];
#pragma GCC unroll 6
    for (int t = 0; t < TOKENS; t++) {
#pragma GCC unroll 4
        for (int r = 0; r < ROWS; r++) {
            sums[t][r] = begins ? broadcast(0.f) : dots[token + t][row + r];
        }
    }
    for (int64_t column = 0; column < columns; column += LANES) {
        __builtin_prefetch(next + column * number_size, 0, 2);
        Floats rows[ROWS];
        for (int r = 0; r < ROWS; r++) {
            const char * numbers_of_row = weights + (row + r) * stride;
            rows[r] = load_numbers(reinterpret_cast<const Number *>(numbers_of_row) + column);
        }
        for (int t = 0; t < TOKENS; t++) {
            const Floats input = load_unaligned(numbers + t * inputs.stride + column);
            for (int r = 0; r < ROWS; r++) {
                sums[t][r] = multiply_add(rows[r], input, sums[t][r]);
            }
        }
    }
#pragma GCC unroll 6
    for (int t = 0; t < TOKENS; t++) {
#pragma GCC unroll 4
        for (int r = 0; r < ROWS; r++) {
            dots[token + t][row + r] = sums[t][r];
        }
    }
}

// As above, for all rows of a panel and all tokens.
template <typename Number>
KERNEL void multiply_plain(const char * weights, int64_t stride, int64_t columns, bool begins,
                           const Inputs & inputs, Dots dots, const NextRows & next) {
    int64_t token = 0, part = 0;
    const auto multiply_next = [&](auto count) KERNEL {
        for (int64_t row = 0; row < PANEL_ROWS; row += PLAIN_ROWS) {
            multiply_plain<Number, PLAIN_ROWS, count>(weights, stride, columns, begins, inputs, row,
                                                      token, dots, next.row(part++), next.number_size);
        }
        token += count;
    };
    while (token + PLAIN_TOKENS <= inputs.tokens) {
        multiply_next(std::integral_constant<int, PLAIN_TOKENS>());
    }
    if (token + 4 <= inputs.tokens) {
        multiply_next(std::integral_constant<int, 4>());
    }
    if (token + 2 <= inputs.tokens) {
        multiply_next(std::integral_constant<int, 2>());
    }
    if (token < inputs.tokens) {
        multiply_next(std::integral_constant<int, 1>());
    }
}

// As above, with a copy of the weights in single precision that lies close together: rows at a distance of pages share
// few places of a cache.
template <typename Number>
KERNEL void multiply_copy(const char * weights, int64_t stride, int64_t columns,
                          const Inputs & inputs, Dots dots) {
    alignas(64) float copy[PANEL_ROWS][PLAIN_COLUMNS];
    for (int64_t first = 0; first < columns; first += PLAIN_COLUMNS) {
        const int64_t width = std::min(PLAIN_COLUMNS, columns - first);
        for (int64_t row = 0; row < PANEL_ROWS; row++) {
            const auto * numbers = reinterpret_cast<const Number *>(weights + row * stride) + first;
            for (int64_t column = 0; column < width; column += LANES) {
                store(copy[row] + column, load_numbers(numbers + column));
            }
        }
        const Inputs part{inputs.numbers + first, inputs.stride, inputs.tokens};
        const NextRows next{weights + PANEL_ROWS * stride + first * int64_t(sizeof(Number)), stride,
                            sizeof(Number)};
        multiply_plain<float>(reinterpret_cast<const char *>(copy), sizeof copy[0], width, first == 0,
                              part, dots, next);
    }
}

// Adds to sums[0][t] the products of a panel with token t of a tile; a row of the panel is in each lane.
// `activations` holds the tile token by token.
template <typename Block, int PANELS>
KERNEL void multiply_panels(const char * panel, int64_t stride, int64_t blocks,
                            const PlainActivations * activations, int64_t tokens,
                            Floats (*sums)[PLAIN_TILE_TOKENS]) {
    static_assert(PANELS == 1);
    using Number = std::remove_extent_t<decltype(Block::numbers)>;
    const int64_t columns = blocks * PLAIN_NUMBERS;
    const Inputs inputs{reinterpret_cast<const float *>(activations), columns, tokens};
    Floats dots[PLAIN_TILE_TOKENS][PANEL_ROWS];
    // Fewer tokens read each weight once.
    if (tokens <= PLAIN_TOKENS) {
        const NextRows next{panel + PANEL_ROWS * stride, stride, sizeof(Number)};
        multiply_plain<Number>(panel, stride, columns, true, inputs, dots, next);
    } else {
        multiply_copy<Number>(panel, stride, columns, inputs, dots);
    }
    for (int64_t token = 0; token < tokens; token++) {
        sums[0][token] = add(sums[0][token], horizontal_sums(dots[token]));
    }
}

}  // namespace
