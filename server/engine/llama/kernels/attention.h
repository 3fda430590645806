/* Flash attention for llama.cpp, over keys and values in half precision.
 *
 * llama.cpp reads every cell of the KV cache for every query, and converts keys and values again for
 * every head of a GQA group. This kernel converts a KV tile, as many cells as a register has lanes, once
 * for all queries that see it, so that a shared prefix is read once. It skips cells that no query sees,
 * such as those of idle sequences. Where a query sees only a part of a tile, as when sequences grow side
 * by side, its visible cells are gathered until they fill a tile. Masked cells never enter a computation:
 * another request may have left NaN in them.
 *
 * Cells are split into chunks, whose partial results are merged (split-KV; online_softmax.h).
 *
 * tests/unit/engine/test_attention_kernel.py compares the results with exact attention; docs/benchmarks.md has the
 * gain.
 */
#pragma once

#include <algorithm>
#include <cstring>

#include "ggml-cpu-impl.h"
#include "kernels.h"
#include "online_softmax.h"

namespace {

// The KV tiles of keys and of values are 32 KB together with AVX-512, the size of an L1 cache.
constexpr int64_t MAX_HEAD_DIM = 256;
// Queries times the heads of a GQA group. A choice: 24 to 192 rows take the same time with head dimensions
// of 64 and 128, with AVX2 and AVX-512; 16 rows take a tenth more.
constexpr int64_t QUERY_TILE_ROWS = 48;
// A choice: with one thread, 32 to 512 cells take the same time.
constexpr int64_t MIN_CHUNK_CELLS = 128;
constexpr ggml_fp16_t MASKED = 0xfc00;  // -infinity

// The operation and its division into jobs: a query tile times a chunk of cells.
struct FlashAttention {
    const ggml_tensor *queries, *keys, *values, *mask;
    int64_t tokens, cells, kv_heads, heads, gqa_group;
    int64_t tile_tokens, tiles, chunk_cells, chunks;
    float scale;

    FlashAttention(const ggml_tensor * op, int threads)
        : queries(op->src[0]), keys(op->src[1]), values(op->src[2]), mask(op->src[3]) {
        tokens = queries->ne[1];
        cells = keys->ne[1];
        kv_heads = keys->ne[2];
        heads = queries->ne[2];
        gqa_group = heads / kv_heads;
        tile_tokens = std::max<int64_t>(1, QUERY_TILE_ROWS / gqa_group);
        tiles = (tokens + tile_tokens - 1) / tile_tokens;
        // Four jobs for each thread, so that the others can take over from one that is held up.
        const int64_t chunks_wanted = (4 * threads + tiles - 1) / tiles;
        chunk_cells =
            std::max<int64_t>(MIN_CHUNK_CELLS, GGML_PAD(cells / chunks_wanted, KV_TILE));
        chunks = (cells + chunk_cells - 1) / chunk_cells;
        memcpy(&scale, op->op_params, sizeof scale);
    }

    size_t partial_results_size() const {
        return tokens * heads * chunks * partial_result_size(values->ne[0]);
    }
};

// Visible cells of a query that do not fill a KV tile yet, and its mask for them.
struct GatheredCells {
    int32_t cells[2 * KV_TILE];
    ggml_fp16_t mask[2 * KV_TILE];
    int count;
};

// A query and its mask for a KV tile.
struct MaskedQuery {
    int64_t token;
    alignas(32) ggml_fp16_t mask[KV_TILE];
};

// The dot products of a query with the keys of a KV tile, a key in each lane.
KERNEL inline Floats dot_products(const float * query, const float * keys, int64_t key_dim) {
    Floats accumulators[KV_TILE];
    for (Floats & accumulator : accumulators) {
        accumulator = broadcast(0.f);
    }
    for (int64_t d = 0; d < key_dim; d += LANES) {
        const Floats part = load_unaligned(query + d);
        for (int64_t cell = 0; cell < KV_TILE; cell++) {
            const Floats key = load(keys + cell * key_dim + d);
            accumulators[cell] = multiply_add(key, part, accumulators[cell]);
        }
    }
    return horizontal_sums(accumulators);
}

// Converts the keys or values of one KV head in the cells of a KV tile to single precision.
KERNEL inline void convert_tile(const ggml_tensor * tensor, int64_t kv_head,
                                const int32_t cells[KV_TILE], float * numbers) {
    const int64_t head_dim = tensor->ne[0];
    for (int64_t i = 0; i < KV_TILE; i++, numbers += head_dim) {
        const char * cell = static_cast<const char *>(tensor->data) + cells[i] * tensor->nb[1];
        const auto * halves = reinterpret_cast<const ggml_fp16_t *>(cell + kv_head * tensor->nb[2]);
        for (int64_t d = 0; d < head_dim; d += LANES) {
            store(numbers + d, load_halves(halves + d));
        }
    }
}

PartialResult * partial_result(const FlashAttention & op, void * partial_results, int64_t token,
                               int64_t head, int64_t chunk) {
    const int64_t index = (token * op.heads + head) * op.chunks + chunk;
    return reinterpret_cast<PartialResult *>(static_cast<char *>(partial_results) +
                                             index * partial_result_size(op.values->ne[0]));
}

// Updates the partial results of `count` queries with a KV tile, for all heads.
KERNEL void attend_tile(const FlashAttention & op, const int32_t cells[KV_TILE],
                        const MaskedQuery * queries, int64_t count, int64_t chunk,
                        void * partial_results) {
    alignas(64) float keys[KV_TILE * MAX_HEAD_DIM], values[KV_TILE * MAX_HEAD_DIM];
    const int64_t key_dim = op.keys->ne[0], value_dim = op.values->ne[0];
    for (int64_t kv_head = 0; kv_head < op.kv_heads; kv_head++) {
        convert_tile(op.keys, kv_head, cells, keys);
        convert_tile(op.values, kv_head, cells, values);
        for (const MaskedQuery * query = queries; query < queries + count; query++) {
            const Floats mask = load_halves(query->mask);
            const char * heads =
                static_cast<const char *>(op.queries->data) + query->token * op.queries->nb[1];
            for (int64_t i = 0; i < op.gqa_group; i++) {
                const int64_t head = kv_head * op.gqa_group + i;
                const char * numbers = heads + head * op.queries->nb[2];
                const Floats products =
                    dot_products(reinterpret_cast<const float *>(numbers), keys, key_dim);
                const Floats scores = multiply_add(products, broadcast(op.scale), mask);
                online_softmax_update(
                    partial_result(op, partial_results, query->token, head, chunk), scores, values,
                    value_dim);
            }
        }
    }
}

// Updates a query's partial results with a KV tile of gathered cells; masks lanes without a cell.
KERNEL void attend_gathered(const FlashAttention & op, GatheredCells & gathered, int64_t token,
                            int64_t chunk, void * partial_results) {
    MaskedQuery query;
    query.token = token;
    const int count = std::min<int>(gathered.count, KV_TILE);
    std::fill(gathered.cells + count, gathered.cells + KV_TILE, gathered.cells[0]);
    std::fill(gathered.mask + count, gathered.mask + KV_TILE, MASKED);
    memcpy(query.mask, gathered.mask, sizeof query.mask);
    attend_tile(op, gathered.cells, &query, 1, chunk, partial_results);
    gathered.count -= count;
    std::copy_n(gathered.cells + KV_TILE, gathered.count, gathered.cells);
    std::copy_n(gathered.mask + KV_TILE, gathered.count, gathered.mask);
}

// Prefetches the keys or values of all KV heads of a cell.
void prefetch_cell(const ggml_tensor * tensor, int64_t cell) {
    const char * numbers = static_cast<const char *>(tensor->data) + cell * tensor->nb[1];
    for (int64_t kv_head = 0; kv_head < tensor->ne[2]; kv_head++, numbers += tensor->nb[2]) {
        for (size_t offset = 0; offset < tensor->ne[0] * sizeof(ggml_fp16_t); offset += 64) {
            __builtin_prefetch(numbers + offset);
        }
    }
}

// Gathers the visible cells of the KV tile that begins at cell `first`, a bit of `visible` for each.
void gather_visible(const FlashAttention & op, GatheredCells & gathered, int64_t first,
                    unsigned visible, const ggml_fp16_t * mask) {
    for (; visible != 0; visible &= visible - 1) {
        const int i = __builtin_ctz(visible);
        gathered.cells[gathered.count] = first + i;
        gathered.mask[gathered.count++] = mask[i];
        prefetch_cell(op.keys, first + i);
        prefetch_cell(op.values, first + i);
    }
}

// One job: the partial results of a query tile over a chunk of cells.
KERNEL void attend_chunk(const FlashAttention & op, int64_t tile, int64_t chunk,
                         void * partial_results) {
    const int64_t first = tile * op.tile_tokens;
    const int64_t tokens = std::min(op.tokens - first, op.tile_tokens);
    GatheredCells gathered[QUERY_TILE_ROWS];
    for (int64_t i = 0; i < tokens; i++) {
        for (int64_t head = 0; head < op.heads; head++) {
            reset(partial_result(op, partial_results, first + i, head, chunk), op.values->ne[0]);
        }
        gathered[i].count = 0;
    }
    const int64_t end = std::min(op.cells, (chunk + 1) * op.chunk_cells);
    for (int64_t cell = chunk * op.chunk_cells; cell < end; cell += KV_TILE) {
        MaskedQuery queries[QUERY_TILE_ROWS];
        int64_t count = 0;
        for (int64_t i = 0; i < tokens; i++) {
            const char * row =
                static_cast<const char *>(op.mask->data) + (first + i) * op.mask->nb[1];
            const auto * mask = reinterpret_cast<const ggml_fp16_t *>(row) + cell;
            const unsigned visible = not_equal(mask, MASKED);
            if (visible == (1u << KV_TILE) - 1) {
                queries[count].token = first + i;
                memcpy(queries[count++].mask, mask, sizeof queries->mask);
                continue;
            }
            gather_visible(op, gathered[i], cell, visible, mask);
            if (gathered[i].count >= KV_TILE) {
                attend_gathered(op, gathered[i], first + i, chunk, partial_results);
            }
        }
        if (count > 0) {
            int32_t cells[KV_TILE];
            for (int i = 0; i < KV_TILE; i++) {
                cells[i] = cell + i;
            }
            attend_tile(op, cells, queries, count, chunk, partial_results);
        }
    }
    for (int64_t i = 0; i < tokens; i++) {
        if (gathered[i].count > 0) {
            attend_gathered(op, gathered[i], first + i, chunk, partial_results);
        }
    }
}

class FlashAttentionTraits : public ggml::cpu::tensor_traits {
    bool work_size(int threads, const ggml_tensor * op, size_t & size) override {
        size = alignof(PartialResult) + FlashAttention(op, threads).partial_results_size();
        return true;
    }

    // Every thread of llama.cpp's pool calls this and computes its part.
    bool compute_forward(ggml_compute_params * params, ggml_tensor * tensor) override {
        const FlashAttention op(tensor, params->nth);
        void * partial_results =
            reinterpret_cast<void *>(GGML_PAD(uintptr_t(params->wdata), alignof(PartialResult)));
        if (params->ith == 0) {
            ggml_threadpool_chunk_set(params->threadpool, params->nth);
        }
        ggml_barrier(params->threadpool);
        for (int64_t job = params->ith; job < op.tiles * op.chunks;
             job = ggml_threadpool_chunk_add(params->threadpool, 1)) {
            attend_chunk(op, job / op.chunks, job % op.chunks, partial_results);
        }
        ggml_barrier(params->threadpool);
        for (int64_t row = params->ith; row < op.tokens * op.heads; row += params->nth) {
            const int64_t token = row / op.heads, head = row % op.heads;
            char * heads = static_cast<char *>(tensor->data) + token * tensor->nb[2];
            merge_partial_results(partial_result(op, partial_results, token, head, 0), op.chunks,
                                  op.values->ne[0],
                                  reinterpret_cast<float *>(heads + head * tensor->nb[1]));
        }
        return true;
    }
};

// Whether keys or values have a supported type and shape.
bool supports_cells(const ggml_tensor * tensor) {
    return tensor->type == GGML_TYPE_F16 && tensor->nb[0] == sizeof(ggml_fp16_t) &&
           tensor->ne[0] % LANES == 0 && tensor->ne[0] <= MAX_HEAD_DIM &&
           tensor->ne[1] % KV_TILE == 0 && tensor->ne[3] == 1;
}

ggml::cpu::tensor_traits * attention_traits(const ggml_tensor * op) {
    static FlashAttentionTraits traits;
    if (op->op != GGML_OP_FLASH_ATTN_EXT || ggml_is_empty(op)) {
        return nullptr;
    }
    const ggml_tensor *queries = op->src[0], *keys = op->src[1], *values = op->src[2];
    const ggml_tensor *mask = op->src[3], *sinks = op->src[4];
    float parameters[3];  // scale, ALiBi's largest bias, soft cap of scores
    memcpy(parameters, op->op_params, sizeof parameters);
    const bool plain_scores = parameters[1] == 0 && parameters[2] == 0 && sinks == nullptr;
    const bool mask_supported = mask != nullptr && mask->type == GGML_TYPE_F16 &&
                                mask->ne[0] >= keys->ne[1] && mask->ne[1] >= queries->ne[1] &&
                                mask->ne[2] == 1 && mask->ne[3] == 1;
    const bool queries_supported = queries->type == GGML_TYPE_F32 &&
                                   queries->nb[0] == sizeof(float) && queries->ne[3] == 1 &&
                                   queries->ne[2] / keys->ne[2] <= QUERY_TILE_ROWS;
    const bool cells_supported = supports_cells(keys) && supports_cells(values) &&
                                 values->ne[1] == keys->ne[1] && values->ne[2] == keys->ne[2];
    return plain_scores && mask_supported && queries_supported && cells_supported ? &traits : nullptr;
}

}  // namespace
