/* Products with keys and sums of weighted values for few rows, that is tokens and heads that read the same KV head.
 *
 * Few rows do not repay storing the numbers of cells in single precision first: these are converted in registers, once for
 * all rows. Where the sums of all rows are more than the registers, as with AVX2, that still takes less time than to convert
 * twice.
 */
#pragma once

#include "attention_op.h"

namespace {

// The products of QUERIES queries with the keys of a tile: results[q] has a key in each lane.
template <int QUERIES, typename Number>
KERNEL __attribute__((noinline)) void multiply_keys(const Number * const * cells, int64_t key_dim,
                                                    const float * const * queries, Floats * results) {
    constexpr int KEYS = QUERIES > 2 ? 4 : LANES / QUERIES;  // whose sums stay in registers
    constexpr int64_t STEP = READ_TOGETHER<Number>;
    Floats partial[QUERIES][LANES / 4];
    for (int64_t first = 0; first < KV_TILE; first += KEYS) {
        Floats sums[QUERIES][KEYS];
#pragma GCC unroll 8
        for (int q = 0; q < QUERIES; q++) {
#pragma GCC unroll 16
            for (int i = 0; i < KEYS; i++) {
                sums[q][i] = broadcast(0.f);
            }
        }
        for (int64_t d = 0; d < key_dim; d += STEP) {
#pragma GCC unroll 16
            for (int i = 0; i < KEYS; i++) {
                NumbersRead<Number> numbers;
                read_numbers(cells[first + i], d, numbers);
#pragma GCC unroll 8
                for (int64_t j = 0; j < STEP / LANES; j++) {
#pragma GCC unroll 8
                    for (int q = 0; q < QUERIES; q++) {
                        sums[q][i] = multiply_add(numbers[j], load_unaligned(queries[q] + d + j * LANES), sums[q][i]);
                    }
                }
            }
        }
#pragma GCC unroll 8
        for (int q = 0; q < QUERIES; q++) {
#pragma GCC unroll 8
            for (int i = 0; i < KEYS; i += 4) {
                partial[q][(first + i) / 4] =
                    partial_sums(sums[q][i], sums[q][i + 1], sums[q][i + 2], sums[q][i + 3]);
            }
        }
    }
#pragma GCC unroll 8
    for (int q = 0; q < QUERIES; q++) {
        results[q] = combine_sums(partial[q]);
    }
}

// Adds COLUMNS registers of the values of a tile, from number `first` on, times the weights of each row, to its sums.
template <int ROWS, int COLUMNS, typename Number>
KERNEL inline void add_columns(const Number * const * cells, const float * const * weights, float * const * of_rows,
                               int64_t first, Magnitude<Number> & magnitude) {
    constexpr int TOGETHER = READ_TOGETHER<Number> / LANES;
    Floats sums[ROWS][COLUMNS];
#pragma GCC unroll 8
    for (int i = 0; i < ROWS; i++) {
#pragma GCC unroll 8
        for (int c = 0; c < COLUMNS; c++) {
            sums[i][c] = load(of_rows[i] + first + c * LANES);
        }
    }
    for (int64_t cell = 0; cell < KV_TILE; cell++) {
        Floats weight[ROWS];
#pragma GCC unroll 8
        for (int i = 0; i < ROWS; i++) {
            weight[i] = broadcast(weights[i][cell]);
        }
#pragma GCC unroll 8
        for (int c = 0; c < COLUMNS; c += TOGETHER) {
            NumbersRead<Number> numbers;
            read_numbers(cells[cell], first + c * LANES, numbers);
            magnitude.take(cells[cell], first + c * LANES);
#pragma GCC unroll 8
            for (int j = 0; j < TOGETHER; j++) {
#pragma GCC unroll 8
                for (int i = 0; i < ROWS; i++) {
                    sums[i][c + j] = multiply_add(numbers[j], weight[i], sums[i][c + j]);
                }
            }
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < ROWS; i++) {
#pragma GCC unroll 8
        for (int c = 0; c < COLUMNS; c++) {
            store(of_rows[i] + first + c * LANES, sums[i][c]);
        }
    }
}

// Adds the values of a tile, times the weights of each of ROWS rows, to the sums of these. Returns a bound of the values.
template <int ROWS, typename Number>
KERNEL __attribute__((noinline)) float add_cells(const Number * const * cells, int64_t value_dim,
                                                 const float * const * weights, float * const * of_rows) {
    Magnitude<Number> magnitude;
    constexpr int COLUMNS = LANES == 16 && ROWS > 4 ? 2 : 4;  // whose sums stay in registers with AVX-512
    int64_t first = 0;
    for (; first + COLUMNS * LANES <= value_dim; first += COLUMNS * LANES) {
        add_columns<ROWS, COLUMNS>(cells, weights, of_rows, first, magnitude);
    }
    for (; first < value_dim; first += READ_TOGETHER<Number>) {
        add_columns<ROWS, READ_TOGETHER<Number> / LANES>(cells, weights, of_rows, first, magnitude);
    }
    return magnitude.bound();
}

}  // namespace
