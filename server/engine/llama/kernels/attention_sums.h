/* Softmax and sums of weighted values whose results do not depend on the order of the cells.
 *
 * Where a token's cells lie in the KV cache, beside which others, and how threads divide them, says nothing
 * about the text; so it must not change a bit of the result. Maximums do not depend on an order. Sums of
 * weights are integers. Sums of weighted values are floats that stay between two powers of two, so that
 * adding a product rounds it to a multiple of one unit, whatever was added before (Demmel and Nguyen, "Fast
 * Reproducible Floating-Point Summation", ARITH 2013, pre-rounding). The unit is 2^-22 of the sum of the weights
 * times the largest value, or up to four times that; it follows from the cells that a token sees.
 *
 * Rounding to nearest would depend on the sum before where a product lies in the middle of two multiples. That
 * cannot be: the last bit of every weight is set. So a product, an odd multiple of a power of two, could only
 * lie there if it were larger than half of the power of two below the sum.
 */
#pragma once

#include <cmath>
#include <cstdint>
#include <type_traits>

namespace {

constexpr int64_t KV_TILE = LANES;  // cells that are computed together
constexpr int64_t MAX_CELLS = 1 << 19;

// exp(x) for x <= 0, with its last bit set: 2^exponent * exp(rest), with |rest| <= log(2) / 2 and exp(rest) by
// its Taylor polynomial of degree 6. The relative error is below 4e-7; 0 from -87 down.
KERNEL inline Floats exponential(Floats x) {
    const Floats power = multiply(x, broadcast(1.44269504f)), exponent = round_to_nearest(power);
    // log(2) in two parts, as in Cephes' expf: products of the first one with exponents are exact.
    Floats rest = subtract_product(x, exponent, broadcast(0.693359375f));
    rest = subtract_product(rest, exponent, broadcast(-2.12194440e-4f));
    Floats sum = broadcast(1.f / 720);
    for (const float coefficient : {1.f / 120, 1.f / 24, 1.f / 6, 0.5f, 1.f, 1.f}) {
        sum = multiply_add(sum, rest, broadcast(coefficient));
    }
    return scale_by_power_of_two(Floats(Words(sum) | 1), exponent, x, -87);
}

KERNEL inline Floats hyperbolic_tangent(Floats x) {
    const Floats sign = Floats(Words(x) & 0x80000000);
    const Floats magnitude = Floats(Words(x) & 0x7fffffff);
    const Floats power = exponential(multiply(magnitude, broadcast(-2.f)));
    const Floats one = broadcast(1.f);
    const Floats result = divide(subtract(one, power), add(one, power));
    return Floats(Words(result) | Words(sign));
}

// What a thread knows about the scores of a token and head, those of different cells in each lane.
struct SoftmaxStatistics {
    Floats largest_scores;
    Longs sums;           // of the weights exp(score - largest score), in 2^-30
    float largest_value;  // of the values that were read, without signs: a bound by these alone

    float largest_score() const {
        float largest = -INFINITY;
        for (int64_t lane = 0; lane < LANES; lane++) {
            largest = std::max(largest, largest_scores[lane]);
        }
        return largest;
    }

    int64_t sum() const {
        int64_t sum = 0;
        for (int64_t lane = 0; lane < LANES / 2; lane++) {
            sum += sums[lane];
        }
        return sum;
    }
};

// What sums of weighted values start from: three halves of a power of two. Half of the power is more than the sum of
// the magnitudes of all products, their roundings included: those of MAX_CELLS add less than a sixteenth.
inline float start_of_sums(float sum_of_weights, float largest_value) {
    int exponent;
    std::frexp(1.125f * sum_of_weights * largest_value, &exponent);
    // A sum whose unit would not be a normal float is zero.
    return std::isfinite(largest_value) ? std::ldexp(1.5f, std::max(exponent, -100) + 1) : NAN;
}

// Products of smaller weights are less than half a unit, and so rounded to zero.
inline float smallest_weight(float sum_of_weights) {
    return 0.5f / (1 << 22) * sum_of_weights;
}

// Values of tiles of cells that follow each other, and the weights of some rows for them.
struct WeightedValues {
    const float * values;           // [tile][cell][value_dim]
    int64_t value_dim;
    const float * const * weights;  // of each row, for the cells of the first tile
    int64_t stride;                 // from these to those of the next tile
    float * const * sums;           // of each row
    const unsigned * tiles;         // of each row, a bit for each tile whose values it needs
};

// Adds numbers of the values, times the weights of `ROWS` rows from `row` on, to the sums of these.
template <int ROWS, int COLUMNS>
KERNEL inline void add_weighted_values(const WeightedValues & all, int64_t row, int64_t first) {
    Floats sums[ROWS][COLUMNS];
    unsigned tiles = 0;
    for (int i = 0; i < ROWS; i++) {
        tiles |= all.tiles[row + i];
        for (int c = 0; c < COLUMNS; c++) {
            sums[i][c] = load(all.sums[row + i] + first + c * LANES);
        }
    }
    for (; tiles != 0; tiles &= tiles - 1) {
        const int64_t tile = __builtin_ctz(tiles);
        const float * values = all.values + tile * KV_TILE * all.value_dim + first;
        const float * weights[ROWS];
        for (int i = 0; i < ROWS; i++) {
            weights[i] = all.weights[row + i] + tile * all.stride;
        }
        for (int64_t cell = 0; cell < KV_TILE; cell++, values += all.value_dim) {
            Floats weight[ROWS];
            for (int i = 0; i < ROWS; i++) {
                weight[i] = broadcast(weights[i][cell]);
            }
            for (int c = 0; c < COLUMNS; c++) {
                const Floats value = load_once(values + c * LANES);
                for (int i = 0; i < ROWS; i++) {
                    sums[i][c] = multiply_add(value, weight[i], sums[i][c]);
                }
            }
        }
    }
    for (int i = 0; i < ROWS; i++) {
        for (int c = 0; c < COLUMNS; c++) {
            store(all.sums[row + i] + first + c * LANES, sums[i][c]);
        }
    }
}

// The sums of so many rows, of four registers each, fit into the registers.
constexpr int ROWS_OF_SUMS = LANES == 16 ? 6 : 2;

// As above, for all numbers of the values and the rows from `row` on.
template <int ROWS = ROWS_OF_SUMS>
KERNEL inline void add_weighted_values(const WeightedValues & all, int64_t rows, int64_t row = 0) {
    for (; row + ROWS <= rows; row += ROWS) {
        int64_t first = 0;
        for (; first + 4 * LANES <= all.value_dim; first += 4 * LANES) {
            add_weighted_values<ROWS, 4>(all, row, first);
        }
        for (; first < all.value_dim; first += LANES) {
            add_weighted_values<ROWS, 1>(all, row, first);
        }
    }
    if constexpr (ROWS > 1) {
        add_weighted_values<(ROWS > 4 ? 4 : ROWS / 2)>(all, rows, row);
    }
}

}  // namespace
