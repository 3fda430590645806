/* Multiplies weights that are plain numbers, in half precision, bfloat16 or single precision. Included after the
 * vector operations of an instruction set.
 *
 * The weights of a few tokens are read where they lie, and the lanes of each sum are added at the end. For many tokens the
 * weights of a panel are stored column by column first (lane_products.h). The results are the same.
 */
#pragma once

#include <algorithm>
#include <type_traits>

#include "lane_products.h"
#include "row_streams.h"

namespace {

constexpr int PLAIN_NUMBERS = 16, PLAIN_PANELS = 1;
// Tokens that are multiplied together if they are many: a register of sums for each.
constexpr int64_t GROUP_TOKENS = LANES;
constexpr int64_t PLACED_TOGETHER = GROUP_TOKENS;  // rows of activations
constexpr int64_t PLAIN_TILE_TOKENS = 192;         // their sums take 12 KB with AVX-512

}  // namespace

#include "plain_weights.h"

namespace {

// The activations of a token for one block of weights, not quantized: a cache line, which a register reads at once.
struct alignas(64) PlainActivations {
    float numbers[PLAIN_NUMBERS];
};

// Of a few tokens so many are multiplied together. Their sums fit into the registers, beside one for each row and one for a
// token.
constexpr int PLAIN_ROWS = LANES / 4, FEW_TOGETHER = 6, PLAIN_TOKENS_BY_ROWS = FEW_TOGETHER;
// Blocks that are multiplied before the next ones. The activations of a group, the weights that they are multiplied with
// and the sums then stay in the L1 cache.
constexpr int64_t PLAIN_BLOCKS = 512 / PLAIN_NUMBERS;

// Puts a row of few, row `row` of all `rows`, into its place: [block][token] in its group. Rows at a distance of pages would
// share few places of a cache.
KERNEL inline void place_of_few(const float * numbers, int64_t row, int64_t rows, int64_t blocks,
                                PlainActivations * activations) {
    const int64_t token = row % FEW_TOGETHER, group = row - token;
    const int64_t width = std::min<int64_t>(FEW_TOGETHER, rows - group);
    PlainActivations * place = activations + group * blocks + token;
    for (int64_t block = 0; block < blocks; block++) {
        memcpy(place + block * width, numbers + block * PLAIN_NUMBERS, sizeof *place);
    }
}

// Stores LANES rows column by column; rows[i] and rows[i + 1] lie `stride` bytes apart.
KERNEL inline void store_columns(const float * rows, int64_t stride, int64_t first, int64_t count, int64_t steps,
                                 float * columns) {
    constexpr int64_t WORDS = 8;
    for (int64_t d = 0; d < count; d += WORDS) {
        Words words[WORDS];
        load_words<WORDS>(reinterpret_cast<const char *>(rows + d), stride, words);
        for (int64_t i = 0; i < WORDS; i++) {
            store(columns + place_of_column(first + d + i, steps) * LANES, Floats(words[i]));
        }
    }
}

// Puts `count` rows of activations, from row `first` of all `rows` on, into their places. Of many those of a group lie
// column by column.
template <typename Block>
KERNEL inline void place_plain(const float * const * numbers, int64_t first, int64_t count, int64_t rows,
                               int64_t blocks, PlainActivations * activations) {
    const int64_t columns = blocks * PLAIN_NUMBERS, steps = columns / LANES;
    if (are_many(rows) && count == GROUP_TOKENS) {
        auto * place = reinterpret_cast<float *>(activations + first * blocks);
        for (int64_t column = 0; column < columns; column += PLAIN_NUMBERS) {
            float of_tokens[GROUP_TOKENS][PLAIN_NUMBERS];
            for (int64_t i = 0; i < GROUP_TOKENS; i++) {
                memcpy(of_tokens[i], numbers[i] + column, sizeof of_tokens[i]);
            }
            store_columns(of_tokens[0], sizeof of_tokens[0], column, PLAIN_NUMBERS, steps, place);
        }
        return;
    }
    for (int64_t row = first; row < first + count; row++) {
        if (!are_many(rows)) {
            place_of_few(numbers[row - first], row, rows, blocks, activations);
            continue;
        }
        const int64_t token = row % GROUP_TOKENS, group = row - token;
        const int64_t width = std::min(GROUP_TOKENS, rows - group);
        auto * place = reinterpret_cast<float *>(activations + group * blocks) + token;
        place_columns(numbers[row - first], steps, width, place);
    }
}

// Sums of the products of a group's tokens with the rows of a panel: those of different columns are in each lane.
using Dots = Floats[FEW_TOGETHER][PANEL_ROWS];

// Multiplies blocks of PLAIN_ROWS rows, `stride` bytes apart from `weights` on, and of the TOKENS tokens of a group. The
// products are added to dots[token][row] and the following, or begin them; their order depends on nothing but the number
// of columns. Before each block it calls `prefetch` with the bytes before it.
template <typename Number, int TOKENS, typename Prefetch>
KERNEL inline void multiply_group(const char * weights, int64_t stride, int64_t blocks, bool begins,
                                  const PlainActivations * activations, int64_t row, Dots & dots,
                                  Prefetch prefetch) {
    constexpr int ROWS = PLAIN_ROWS;
    Floats sums[TOKENS][ROWS];
#pragma GCC unroll 6
    for (int t = 0; t < TOKENS; t++) {
#pragma GCC unroll 4
        for (int r = 0; r < ROWS; r++) {
            sums[t][r] = begins ? broadcast(0.f) : dots[t][row + r];
        }
    }
    const auto * first = reinterpret_cast<const Number *>(weights);
    const int64_t row_numbers = stride / int64_t(sizeof(Number));
    for (int64_t block = 0; block < blocks; block++) {
        prefetch(block * PLAIN_NUMBERS * int64_t(sizeof(Number)));
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
                const Floats input = load_once(activations[block * TOKENS + t].numbers + lane);
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
                           const PlainActivations * activations, int64_t next_row, Dots & dots) {
    const char * next = panel + (PANEL_ROWS + next_row) * stride;
    for (int64_t first = 0; first < blocks; first += PLAIN_BLOCKS) {
        const int64_t column_bytes = first * PLAIN_NUMBERS * int64_t(sizeof(Number));
        for (int64_t row = 0; row < PANEL_ROWS; row += PLAIN_ROWS) {
            const char * next_columns = next + row / PLAIN_ROWS * stride + column_bytes;
            multiply_group<Number, TOKENS>(
                panel + row * stride + column_bytes, stride, std::min(PLAIN_BLOCKS, blocks - first), first == 0,
                activations + first * TOKENS, row, dots,
                [=](int64_t bytes) KERNEL { __builtin_prefetch(next_columns + bytes, 0, 2); });
        }
    }
}

// Stores the weights of a panel column by column, in single precision.
template <typename Number>
KERNEL void store_panel(const char * panel, int64_t stride, int64_t blocks, float * columns) {
    const int64_t steps = blocks * PLAIN_NUMBERS / LANES;
    if constexpr (std::is_same_v<Number, float>) {
        store_columns(reinterpret_cast<const float *>(panel), stride, 0, blocks * PLAIN_NUMBERS, steps, columns);
    } else {
        for (int64_t first = 0; first < blocks * PLAIN_NUMBERS; first += PLAIN_NUMBERS) {
            float numbers[PANEL_ROWS][PLAIN_NUMBERS];
            for (int64_t row = 0; row < PANEL_ROWS; row++) {
                const auto * of_row = reinterpret_cast<const Number *>(panel + row * stride) + first;
                for (int64_t lane = 0; lane < PLAIN_NUMBERS; lane += LANES) {
                    store_unaligned(numbers[row] + lane, load_numbers(of_row + lane));
                }
            }
            store_columns(numbers[0], sizeof numbers[0], first, PLAIN_NUMBERS, steps, columns);
        }
    }
}

// Sets sums[0][t] to the products of a panel with token t of a tile; a row of the panel is in each lane. `columns` is memory
// for the panel if all tokens are many, and otherwise null.
template <typename Block, int PANELS>
KERNEL void multiply_panels(const char * panel, int64_t stride, int64_t blocks,
                            const PlainActivations * activations, int64_t tokens, float * columns,
                            Floats (*sums)[PLAIN_TILE_TOKENS]) {
    static_assert(PANELS == 1);
    using Number = std::remove_extent_t<decltype(Block::numbers)>;
    if (columns != nullptr) {
        store_panel<Number>(panel, stride, blocks, columns);
        for (int64_t token = 0; token < tokens; token += GROUP_TOKENS) {
            const auto * of_group = reinterpret_cast<const float *>(activations + token * blocks);
            with_count<GROUP_TOKENS>(tokens - token, [&](auto count) KERNEL {
                multiply_columns<count>(columns, of_group, blocks * PLAIN_NUMBERS / LANES, sums[0] + token);
            });
        }
        return;
    }
    for (int64_t token = 0; token < tokens; token += FEW_TOGETHER) {
        Dots dots;
        const int64_t next_row = token / FEW_TOGETHER * (PANEL_ROWS / PLAIN_ROWS) % PANEL_ROWS;
        const auto multiply_tokens = [&](auto count) KERNEL {
            multiply_group<Number, count>(panel, stride, blocks, activations + token * blocks, next_row, dots);
            for (int t = 0; t < count; t++) {
                sums[0][token + t] = horizontal_sums(dots[t]);
            }
        };
        with_count<FEW_TOGETHER>(tokens - token, multiply_tokens);
    }
}

// Sets results[t][r] to the product of row r, from row `row` up to `end`, with token t of a group alone.
template <typename Block>
KERNEL void multiply_by_rows(const Matrix & matrix, int64_t row, int64_t end,
                             const PlainActivations * activations, int64_t tokens, float * const * results) {
    using Number = std::remove_extent_t<decltype(Block::numbers)>;
    const auto multiply = [&](int64_t first, int64_t steps, int64_t distance, int64_t needless, auto count) KERNEL {
        Dots dots;  // of rows without a step they stay unset, and are not stored
        const int64_t stride = distance * matrix.stride;
        for (int64_t step = 0; step < steps; step++) {
            const char * weights = matrix.data + (first + step) * matrix.stride;
            const auto prefetch = [=](int64_t bytes) KERNEL {
                for (int64_t r = 0; r < PLAIN_ROWS; r++) {
                    __builtin_prefetch(weights + r * stride + bytes + PREFETCHED_BYTES, 0, 2);
                }
            };
            multiply_group<Number, count>(weights, stride, matrix.blocks, true, activations,
                                          step * PLAIN_ROWS, dots, prefetch);
        }
        for (int t = 0; t < count; t++) {
            const Floats products = horizontal_sums(dots[t]);
            for (int64_t step = 0; step < steps; step++) {
                for (int64_t r = needless; r < PLAIN_ROWS; r++) {
                    results[t][first + step + r * distance] = products[step * PLAIN_ROWS + r];
                }
            }
        }
    };
    with_count<FEW_TOGETHER>(tokens, [&](auto count) KERNEL {
        for_streams<PLAIN_ROWS>(row, end, PANEL_ROWS / PLAIN_ROWS, [&](auto... part) KERNEL {
            multiply(part..., count);
        });
    });
}

}  // namespace
