/* Products of LANES rows of one matrix, a row in each lane, with a few rows of another one, whose numbers are broadcast:
 * nothing is left to add across lanes.
 *
 * Both are stored column by column: those that one lane would have, if rows were multiplied number by number, lie
 * together. Products are added in the same order as these would be by horizontal_sums(), so that the results are the same.
 */
#pragma once

#include <cstdint>

#include "panel.h"

namespace {

// Lane i of the result is the sum of the lanes of rows[i].
KERNEL inline Floats horizontal_sums(const Floats rows[LANES]) {
    Floats sums[LANES / 4];
    for (int64_t i = 0; i < LANES / 4; i++) {
        sums[i] = partial_sums(rows[4 * i], rows[4 * i + 1], rows[4 * i + 2], rows[4 * i + 3]);
    }
    return combine_sums(sums);
}

// Where column `d` lies among all of a row; `steps` of them belong to a lane.
inline int64_t place_of_column(int64_t d, int64_t steps) { return LANE_PLACES[d % LANES] * steps + d / LANES; }

// Puts the numbers of a row into the places of their columns, which lie `distance` numbers apart.
inline void place_columns(const float * row, int64_t steps, int64_t distance, float * places) {
    for (int64_t step = 0; step < steps; step++, row += LANES, places += distance) {
#pragma GCC unroll 16
        for (int64_t lane = 0; lane < LANES; lane++) {
            places[LANE_PLACES[lane] * steps * distance] = row[lane];
        }
    }
}

// sums[r] becomes the sum of the products of the columns that `COUNT` lanes would have: columns[place][lane] with
// rows[place][r].
template <int64_t COUNT, int64_t ROWS>
KERNEL __attribute__((always_inline)) inline void add_lanes(const float * columns, const float * rows, int64_t steps,
                                                            Floats (&sums)[ROWS]) {
    if constexpr (COUNT == 1) {
#pragma GCC unroll 16
        for (int64_t r = 0; r < ROWS; r++) {
            sums[r] = broadcast(0.f);
        }
        for (int64_t step = 0; step < steps; step++) {
            const Floats column = load(columns + step * LANES);
#pragma GCC unroll 16
            for (int64_t r = 0; r < ROWS; r++) {
                sums[r] = multiply_add(column, broadcast(rows[step * ROWS + r]), sums[r]);
            }
        }
    } else {
        Floats others[ROWS];
        add_lanes<COUNT / 2>(columns, rows, steps, sums);
        add_lanes<COUNT / 2>(columns + COUNT / 2 * steps * LANES, rows + COUNT / 2 * steps * ROWS, steps, others);
#pragma GCC unroll 16
        for (int64_t r = 0; r < ROWS; r++) {
            sums[r] = add(sums[r], others[r]);
        }
    }
}

// The same for all columns.
template <int64_t ROWS>
KERNEL inline void multiply_columns(const float * columns, const float * rows, int64_t steps, Floats * products) {
    Floats sums[ROWS];
    add_lanes<LANES>(columns, rows, steps, sums);
#pragma GCC unroll 16
    for (int64_t r = 0; r < ROWS; r++) {
        products[r] = sums[r];
    }
}

}  // namespace
