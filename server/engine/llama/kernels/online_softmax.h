/* Softmax and the weighted sum of values in one pass over the cells, in single precision.
 *
 * Milakov and Gimelshein, "Online normalizer calculation for softmax", arXiv:1805.02867, algorithm 3 and
 * section 3.1; with the sum of values in the same pass: Dao et al., "FlashAttention", arXiv:2205.14135,
 * algorithm 1.
 */
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>

namespace {

constexpr int64_t KV_TILE = LANES;  // cells that are computed together

// The attention of a query of one head over some of the cells. The accumulator, the weighted sum of their
// values, follows in memory.
struct alignas(LANES * sizeof(float)) PartialResult {
    float running_max;  // of the scores
    float running_sum;  // of the weights, exp(score - running_max)
};

inline int64_t partial_result_size(int64_t value_dim) {
    return sizeof(PartialResult) + value_dim * sizeof(float);
}

inline void reset(PartialResult * partial, int64_t value_dim) {
    memset(partial, 0, partial_result_size(value_dim));
    partial->running_max = -INFINITY;
}

// exp(x) for x <= 0: 2^exponent * exp(rest), with |rest| <= log(2) / 2 and exp(rest) by its Taylor
// polynomial of degree 5. The relative error is below 6e-6; 0 from -87 down.
KERNEL inline Floats exponential(Floats x) {
    const Floats power = multiply(x, broadcast(1.44269504f)), exponent = round_to_nearest(power);
    const Floats rest = multiply(subtract(power, exponent), broadcast(0.693147181f));
    Floats sum = broadcast(1.f / 120);
    for (const float coefficient : {1.f / 24, 1.f / 6, 0.5f, 1.f, 1.f}) {
        sum = multiply_add(sum, rest, broadcast(coefficient));
    }
    return scale_by_power_of_two(sum, exponent, x, -87);
}

// Adds the scores and values of a KV tile to a partial result.
KERNEL inline void online_softmax_update(PartialResult * partial, Floats scores,
                                         const float * values, int64_t value_dim) {
    float * accumulator = reinterpret_cast<float *>(partial + 1);
    const float tile_max = horizontal_max(scores);
    if (tile_max > partial->running_max) {
        const float rescale = expf(partial->running_max - tile_max);
        for (int64_t d = 0; d < value_dim; d += LANES) {
            store(accumulator + d, multiply(load(accumulator + d), broadcast(rescale)));
        }
        partial->running_sum *= rescale;
        partial->running_max = tile_max;
    }
    const Floats weight = exponential(subtract(scores, broadcast(partial->running_max)));
    partial->running_sum += horizontal_sum(weight);
    Floats weights[KV_TILE];
    for (int cell = 0; cell < KV_TILE; cell++) {
        weights[cell] = broadcast_lane(weight, cell);
    }
    for (int64_t d = 0; d < value_dim; d += LANES) {
        Floats even = load(accumulator + d), odd = broadcast(0.f);
        for (int64_t cell = 0; cell < KV_TILE; cell += 2) {
            const float * value = values + cell * value_dim + d;
            even = multiply_add(load(value), weights[cell], even);
            odd = multiply_add(load(value + value_dim), weights[cell + 1], odd);
        }
        store(accumulator + d, add(even, odd));
    }
}

// Merges partial results that follow each other in memory. Without any visible cell the result is 0.
inline void merge_partial_results(const PartialResult * first, int64_t count, int64_t value_dim,
                                  float * result) {
    const auto partial_result = [&](int64_t i) {
        const char * bytes = reinterpret_cast<const char *>(first) + i * partial_result_size(value_dim);
        return reinterpret_cast<const PartialResult *>(bytes);
    };
    float max = -INFINITY, sum = 0;
    for (int64_t i = 0; i < count; i++) {
        max = std::max(max, partial_result(i)->running_max);
    }
    std::fill_n(result, value_dim, 0.f);
    for (int64_t i = 0; i < count; i++) {
        const PartialResult * partial = partial_result(i);
        if (partial->running_sum == 0) {
            continue;
        }
        const float * accumulator = reinterpret_cast<const float *>(partial + 1);
        const float rescale = expf(partial->running_max - max);
        sum += rescale * partial->running_sum;
        for (int64_t d = 0; d < value_dim; d++) {
            result[d] += rescale * accumulator[d];
        }
    }
    for (int64_t d = 0; d < value_dim && sum != 0; d++) {
        result[d] /= sum;
    }
}

}  // namespace
