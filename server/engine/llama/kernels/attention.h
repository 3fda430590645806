/* Flash attention for llama.cpp, over keys and values in half precision.
 *
 * llama.cpp looks at every cell of the KV cache for every query, and converts keys and values again
 * for each head that shares them. Here cells are taken by groups of as many as a register has lanes,
 * in one conversion for all queries that see them: so a beginning that sequences share is read once.
 * Cells that no query sees, such as those of idle sequences, cost next to nothing; where a query sees
 * a part of a group, as when sequences grow side by side, those wait until they fill one. Nothing is
 * computed with an unseen cell, whose numbers another request may have spoilt.
 *
 * The softmax is computed as the cells are read (Milakov and Gimelshein, "Online normalizer
 * calculation for softmax", arXiv:1805.02867), in single precision. tests/unit/engine/test_kernels.py
 * compares it with exact attention; what it brings is measured in docs/benchmarks.md.
 */
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>

#include "ggml-cpu-impl.h"
#include "kernels.h"

namespace {

constexpr int64_t CELLS = LANES;          // of a group, taken at once
constexpr int64_t MOST_DIMENSIONS = 256;  // of a head
constexpr int64_t ROWS = 48;              // of a tile: queries times the heads that share keys
constexpr int64_t LEAST_CHUNK = 128;      // cells that are worth a job of their own
constexpr ggml_fp16_t UNSEEN = 0xfc00;    // in a mask: -infinity

// What a query of one head knows after some of the cells; the weighted sum of their values follows.
struct alignas(LANES * sizeof(float)) State {
    float largest;  // of the scores
    float total;    // of the weights, e to the power of (score - largest)
};

// The operation, cut into jobs: a tile of queries and a chunk of cells.
struct Shape {
    const ggml_tensor *queries, *keys, *values, *mask, *result;
    int64_t tokens, cells, key_heads, heads, group, tile, tiles, chunk, chunks;
    float scale;

    Shape(const ggml_tensor * op, int threads)
        : queries(op->src[0]), keys(op->src[1]), values(op->src[2]), mask(op->src[3]), result(op) {
        tokens = queries->ne[1];
        cells = keys->ne[1];
        key_heads = keys->ne[2];
        heads = queries->ne[2];
        group = heads / key_heads;
        tile = std::max<int64_t>(1, ROWS / group);
        tiles = (tokens + tile - 1) / tile;
        // Several jobs for each thread: one that is held up leaves the rest to the others.
        const int64_t chunks_wanted = (4 * threads + tiles - 1) / tiles;
        chunk = std::max<int64_t>(LEAST_CHUNK, GGML_PAD(cells / chunks_wanted, CELLS));
        chunks = (cells + chunk - 1) / chunk;
        memcpy(&scale, op->op_params, sizeof scale);
    }

    int64_t state_size() const { return sizeof(State) + values->ne[0] * sizeof(float); }

    size_t states_size() const { return tokens * heads * chunks * state_size(); }
};

// What was not yet taken of the cells that a query sees, and its mask.
struct Waiting {
    int32_t cells[2 * CELLS];
    ggml_fp16_t mask[2 * CELLS];
    int count;
};

// A query that sees a whole group, and its mask for that.
struct View {
    int64_t token;
    alignas(32) ggml_fp16_t mask[CELLS];
};

// e to the power of numbers that are at most 0, through the nearest power of two and a Taylor
// polynomial of degree 5: off by less than 6e-6 of the value; 0 from -87 down.
KERNEL inline Floats exponential(Floats x) {
    const Floats power = multiply(x, in_all_lanes(1.44269504f)), whole = rounded(power);
    const Floats rest = multiply(subtract(power, whole), in_all_lanes(0.693147181f));
    Floats sum = in_all_lanes(1.f / 120);
    for (const float coefficient : {1.f / 24, 1.f / 6, 0.5f, 1.f, 1.f}) {
        sum = multiply_add(sum, rest, in_all_lanes(coefficient));
    }
    return scaled_above(-87, x, sum, whole);
}

// The products of a query with the keys of a group.
KERNEL inline Floats multiply(const float * query, const float * keys, int64_t dimensions) {
    Floats products[CELLS];
    for (Floats & product : products) {
        product = in_all_lanes(0);
    }
    for (int64_t d = 0; d < dimensions; d += LANES) {
        const Floats part = load_unaligned(query + d);
        for (int64_t cell = 0; cell < CELLS; cell++) {
            const Floats key = load(keys + cell * dimensions + d);
            products[cell] = multiply_add(key, part, products[cell]);
        }
    }
    return sums_of_lanes(products);
}

// Takes the scores of a group and its values into what a query knows.
KERNEL inline void learn(State * state, Floats scores, const float * values, int64_t dimensions) {
    float * sum = reinterpret_cast<float *>(state + 1);
    const float largest = largest_lane(scores);
    if (largest > state->largest) {
        const float fading = expf(state->largest - largest);
        for (int64_t d = 0; d < dimensions; d += LANES) {
            store(sum + d, multiply(load(sum + d), in_all_lanes(fading)));
        }
        state->total *= fading;
        state->largest = largest;
    }
    const Floats weight = exponential(subtract(scores, in_all_lanes(state->largest)));
    state->total += sum_of_lanes(weight);
    Floats weights[CELLS];
    for (int cell = 0; cell < CELLS; cell++) {
        weights[cell] = lane(weight, cell);
    }
    for (int64_t d = 0; d < dimensions; d += LANES) {
        Floats even = load(sum + d), odd = in_all_lanes(0);
        for (int64_t cell = 0; cell < CELLS; cell += 2) {
            const float * value = values + cell * dimensions + d;
            even = multiply_add(load(value), weights[cell], even);
            odd = multiply_add(load(value + dimensions), weights[cell + 1], odd);
        }
        store(sum + d, add(even, odd));
    }
}

// What `tensor`, keys or values, has for a head in the cells of a group, in single precision.
KERNEL inline void convert(const ggml_tensor * tensor, int64_t head, const int32_t cells[CELLS],
                           float * numbers) {
    const int64_t dimensions = tensor->ne[0];
    for (int64_t i = 0; i < CELLS; i++, numbers += dimensions) {
        const char * cell = static_cast<const char *>(tensor->data) + cells[i] * tensor->nb[1];
        const auto * halves = reinterpret_cast<const ggml_fp16_t *>(cell + head * tensor->nb[2]);
        for (int64_t d = 0; d < dimensions; d += LANES) {
            store(numbers + d, read_half(halves + d));
        }
    }
}

State * state_of(const Shape & shape, void * states, int64_t token, int64_t head, int64_t chunk) {
    const int64_t place = (token * shape.heads + head) * shape.chunks + chunk;
    return reinterpret_cast<State *>(static_cast<char *>(states) + place * shape.state_size());
}

// Takes a group into what the queries of `views` know, for all heads.
KERNEL void take(const Shape & shape, const int32_t cells[CELLS], const View * views, int64_t count,
                 int64_t chunk, void * states) {
    alignas(64) float keys[CELLS * MOST_DIMENSIONS], values[CELLS * MOST_DIMENSIONS];
    const int64_t key_dimensions = shape.keys->ne[0], value_dimensions = shape.values->ne[0];
    for (int64_t key_head = 0; key_head < shape.key_heads; key_head++) {
        convert(shape.keys, key_head, cells, keys);
        convert(shape.values, key_head, cells, values);
        for (const View * view = views; view < views + count; view++) {
            const Floats mask = read_half(view->mask);
            const char * queries = static_cast<const char *>(shape.queries->data) +
                                   view->token * shape.queries->nb[1];
            for (int64_t i = 0; i < shape.group; i++) {
                const int64_t head = key_head * shape.group + i;
                const char * query = queries + head * shape.queries->nb[2];
                const Floats products =
                    multiply(reinterpret_cast<const float *>(query), keys, key_dimensions);
                learn(state_of(shape, states, view->token, head, chunk),
                      multiply_add(products, in_all_lanes(shape.scale), mask), values,
                      value_dimensions);
            }
        }
    }
}

// Takes a group of the waiting cells, or what there is.
KERNEL void take(const Shape & shape, Waiting & waiting, int64_t token, int64_t chunk,
                 void * states) {
    View view;
    view.token = token;
    const int count = std::min<int>(waiting.count, CELLS);
    std::fill(waiting.cells + count, waiting.cells + CELLS, waiting.cells[0]);
    std::fill(waiting.mask + count, waiting.mask + CELLS, UNSEEN);
    memcpy(view.mask, waiting.mask, sizeof view.mask);
    take(shape, waiting.cells, &view, 1, chunk, states);
    waiting.count -= count;
    std::copy_n(waiting.cells + CELLS, waiting.count, waiting.cells);
    std::copy_n(waiting.mask + CELLS, waiting.count, waiting.mask);
}

// All heads' keys or values of a cell will be wanted soon.
void prefetch(const ggml_tensor * tensor, int64_t cell) {
    const char * from = static_cast<const char *>(tensor->data) + cell * tensor->nb[1];
    for (int64_t head = 0; head < tensor->ne[2]; head++, from += tensor->nb[2]) {
        for (size_t offset = 0; offset < tensor->ne[0] * sizeof(ggml_fp16_t); offset += 64) {
            __builtin_prefetch(from + offset);
        }
    }
}

// Keeps those of the group from `cell` on that are `seen`, a bit for each.
void keep(const Shape & shape, Waiting & waiting, int64_t cell, unsigned seen,
          const ggml_fp16_t * mask) {
    for (; seen != 0; seen &= seen - 1) {
        const int i = __builtin_ctz(seen);
        waiting.cells[waiting.count] = cell + i;
        waiting.mask[waiting.count++] = mask[i];
        prefetch(shape.keys, cell + i);
        prefetch(shape.values, cell + i);
    }
}

void forget(const Shape & shape, int64_t token, int64_t chunk, void * states) {
    for (int64_t head = 0; head < shape.heads; head++) {
        State * state = state_of(shape, states, token, head, chunk);
        memset(state, 0, shape.state_size());
        state->largest = -INFINITY;
    }
}

// A job: what the queries of a tile know of a chunk of cells.
KERNEL void attend(const Shape & shape, int64_t tile, int64_t chunk, void * states) {
    const int64_t first = tile * shape.tile, tokens = std::min(shape.tokens - first, shape.tile);
    Waiting waiting[ROWS];
    for (int64_t i = 0; i < tokens; i++) {
        forget(shape, first + i, chunk, states);
        waiting[i].count = 0;
    }
    const int64_t end = std::min(shape.cells, (chunk + 1) * shape.chunk);
    for (int64_t cell = chunk * shape.chunk; cell < end; cell += CELLS) {
        View views[ROWS];
        int64_t count = 0;
        for (int64_t i = 0; i < tokens; i++) {
            const char * row = static_cast<const char *>(shape.mask->data) + (first + i) * shape.mask->nb[1];
            const auto * mask = reinterpret_cast<const ggml_fp16_t *>(row) + cell;
            const unsigned seen = differing(mask, UNSEEN);
            if (seen == (1u << CELLS) - 1) {
                views[count].token = first + i;
                memcpy(views[count++].mask, mask, sizeof views->mask);
                continue;
            }
            keep(shape, waiting[i], cell, seen, mask);
            if (waiting[i].count >= CELLS) {
                take(shape, waiting[i], first + i, chunk, states);
            }
        }
        if (count > 0) {
            int32_t cells[CELLS];
            for (int i = 0; i < CELLS; i++) {
                cells[i] = cell + i;
            }
            take(shape, cells, views, count, chunk, states);
        }
    }
    for (int64_t i = 0; i < tokens; i++) {
        if (waiting[i].count > 0) {
            take(shape, waiting[i], first + i, chunk, states);
        }
    }
}

// The result for a query of one head, from what it knows of all chunks; zeros if it sees no cell.
void finish(const Shape & shape, int64_t token, int64_t head, void * states) {
    const int64_t dimensions = shape.values->ne[0];
    char * place = static_cast<char *>(shape.result->data) + token * shape.result->nb[2];
    float * result = reinterpret_cast<float *>(place + head * shape.result->nb[1]);
    float largest = -INFINITY, total = 0;
    for (int64_t chunk = 0; chunk < shape.chunks; chunk++) {
        largest = std::max(largest, state_of(shape, states, token, head, chunk)->largest);
    }
    std::fill_n(result, dimensions, 0.f);
    for (int64_t chunk = 0; chunk < shape.chunks; chunk++) {
        const State * state = state_of(shape, states, token, head, chunk);
        if (state->total == 0) {
            continue;
        }
        const float * sum = reinterpret_cast<const float *>(state + 1);
        const float weight = expf(state->largest - largest);
        total += weight * state->total;
        for (int64_t d = 0; d < dimensions; d++) {
            result[d] += weight * sum[d];
        }
    }
    for (int64_t d = 0; d < dimensions && total != 0; d++) {
        result[d] /= total;
    }
}

class Attention : public ggml::cpu::tensor_traits {
    bool work_size(int threads, const ggml_tensor * op, size_t & size) override {
        size = alignof(State) + Shape(op, threads).states_size();
        return true;
    }

    // Each of llama.cpp's threads calls it and computes a part.
    bool compute_forward(ggml_compute_params * params, ggml_tensor * op) override {
        const Shape shape(op, params->nth);
        void * states =
            reinterpret_cast<void *>(GGML_PAD(uintptr_t(params->wdata), alignof(State)));
        if (params->ith == 0) {
            ggml_threadpool_chunk_set(params->threadpool, params->nth);
        }
        ggml_barrier(params->threadpool);
        for (int64_t job = params->ith; job < shape.tiles * shape.chunks;
             job = ggml_threadpool_chunk_add(params->threadpool, 1)) {
            attend(shape, job / shape.chunks, job % shape.chunks, states);
        }
        ggml_barrier(params->threadpool);
        for (int64_t row = params->ith; row < shape.tokens * shape.heads; row += params->nth) {
            finish(shape, row / shape.heads, row % shape.heads, states);
        }
        return true;
    }
};

bool in_reach(const ggml_tensor * tensor) {
    return tensor->type == GGML_TYPE_F16 && tensor->nb[0] == sizeof(ggml_fp16_t) &&
           tensor->ne[0] % LANES == 0 && tensor->ne[0] <= MOST_DIMENSIONS &&
           tensor->ne[1] % CELLS == 0 && tensor->ne[3] == 1;
}

ggml::cpu::tensor_traits * attention_traits(const ggml_tensor * op) {
    static Attention attention;
    if (op->op != GGML_OP_FLASH_ATTN_EXT || ggml_is_empty(op)) {
        return nullptr;
    }
    const ggml_tensor *queries = op->src[0], *keys = op->src[1], *values = op->src[2];
    const ggml_tensor *mask = op->src[3], *sinks = op->src[4];
    float parameters[3];  // scale, largest bias of positions, soft cap of scores
    memcpy(parameters, op->op_params, sizeof parameters);
    const bool plain = parameters[1] == 0 && parameters[2] == 0 && sinks == nullptr;
    const bool masked = mask != nullptr && mask->type == GGML_TYPE_F16 &&
                        mask->ne[0] >= keys->ne[1] && mask->ne[1] >= queries->ne[1] &&
                        mask->ne[2] == 1 && mask->ne[3] == 1;
    const bool queries_in_reach = queries->type == GGML_TYPE_F32 &&
                                  queries->nb[0] == sizeof(float) && queries->ne[3] == 1 &&
                                  queries->ne[2] / keys->ne[2] <= ROWS;
    return plain && masked && queries_in_reach && in_reach(keys) && in_reach(values) &&
                   values->ne[1] == keys->ne[1] && values->ne[2] == keys->ne[2]
               ? &attention
               : nullptr;
}

}  // namespace
