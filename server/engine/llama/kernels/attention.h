/* Flash attention for llama.cpp.
 *
 * llama.cpp reads every cell of the KV cache for every query, and converts keys and values again for every head of
 * a GQA group. This kernel converts a KV tile, as many cells as a register has lanes, once for all queries that
 * see it, so that a shared prefix is read once. It skips cells that no query sees, such as those of idle
 * sequences. Masked cells never enter a computation: another request may have left NaN in them.
 *
 * A result depends on the query and the cells that it sees, and on nothing else: not on where these lie, nor on
 * other queries or threads (attention_sums.h; amx_products.h for scores on processors with AMX). For that, the
 * largest score of a query and the sum of its weights must be known before values are added, so scores are kept.
 *
 * tests/unit/engine/test_attention_kernel.py compares the results with exact attention; docs/benchmarks.md has the
 * gain.
 */
#pragma once

#include "kernels.h"

namespace {

// How the threads divide the operation. A job is a query tile and some KV heads, for which a thread does everything: it
// waits for no other, and its caches hold the scores. Where these are too few jobs, a job is a part of the cells of a query
// tile, for all KV heads; all threads compute scores, then weights, then sums.
struct Division {
    static constexpr int64_t MIN_PART_CELLS = 128;  // a choice: 32 to 512 take the same time
    // Each pass over the cells, for some KV heads, goes to all pages that they lie in. Where few rows do little with a cell,
    // so many bytes in all passes take as long as the waiting of threads that go over them once (with AVX-512, half
    // precision, one and two threads, heads of 64 and 128).
    static constexpr int64_t MOST_BYTES_OF_PASSES = 24 << 20;
    bool by_head;
    int64_t jobs, kv_heads, parts, tile_memories;

    Division(const FlashAttention & op, int threads) {
        const bool has_few_rows = op.tile_rows() < MANY_ROWS;
        kv_heads = heads_of_a_job(op, threads, has_few_rows);
        const int64_t passes = op.kv_heads / kv_heads;
        by_head = are_enough(op.tiles * passes, threads) &&
                  (!has_few_rows || passes == 1 || passes * op.cells * int64_t(op.keys->nb[1]) <= MOST_BYTES_OF_PASSES);
        if (by_head) {
            jobs = op.tiles * passes;
            parts = 1;
            tile_memories = threads;
        } else {
            kv_heads = op.kv_heads;
            jobs = tile_memories = op.tiles;
            parts = std::clamp<int64_t>(op.cells / MIN_PART_CELLS, 1, (4 * threads + jobs - 1) / jobs);
        }
    }

    // More threads than these divide the cells: no job is less than one KV head.
    static int64_t most_threads_by_head(const FlashAttention & op) {
        return std::max<int64_t>(1, op.tiles * op.kv_heads / 2);
    }

  private:
    // Whether threads that take so many jobs end together, also if another has to take over from one that is held up.
    static bool are_enough(int64_t jobs, int threads) {
        return threads == 1 || jobs >= 4 * threads || (jobs >= 2 * threads && jobs % threads == 0);
    }

    // Many rows fill the caches with the scores of one head. Few read cells, as many as possible in the order in which they
    // lie.
    static int64_t heads_of_a_job(const FlashAttention & op, int threads, bool has_few_rows) {
        int64_t most = 1;
        for (int64_t heads = 2; has_few_rows && heads <= op.kv_heads; heads++) {
            if (op.kv_heads % heads == 0 && are_enough(op.tiles * (op.kv_heads / heads), threads)) {
                most = heads;
            }
        }
        return most;
    }
};

// The memory of all threads.
struct Workspace {
    std::atomic<int64_t> * next_jobs;  // of each phase
    CellTile * cells;                  // of each thread
    char * queries;                    // of each thread
    char * sums;                       // of each thread
    char * tiles;

    Workspace(const FlashAttention & op, const Division & division, int threads, void * memory)
        : next_jobs(reinterpret_cast<std::atomic<int64_t> *>(GGML_PAD(uintptr_t(memory), 64))),
          cells(reinterpret_cast<CellTile *>(reinterpret_cast<char *>(next_jobs) + 64)),
          queries(reinterpret_cast<char *>(cells) + cells_size(op, threads)),
          sums(queries + threads * queries_size(op, division)),
          tiles(sums + threads * TileAttention::thread_memory_size(op)) {}

    static size_t cells_size(const FlashAttention & op, int threads) {
        return GGML_PAD(threads * op.max_cell_tiles() * sizeof(CellTile), 64);
    }

    // Of one thread.
    static size_t queries_size(const FlashAttention & op, const Division & division) {
        return GGML_PAD(QueryProducts::memory_size(op, division.kv_heads), 64);
    }

    static size_t size(const FlashAttention & op, int threads) {
        const Division division(op, threads);
        return 128 + cells_size(op, threads) + threads * queries_size(op, division) +
               threads * TileAttention::thread_memory_size(op) +
               division.tile_memories * TileAttention::memory_size(op, division.kv_heads, division.parts);
    }
};

class FlashAttentionTraits : public ggml::cpu::tensor_traits {
    bool work_size(int threads, const ggml_tensor * tensor, size_t & size) override {
        // OpenMP may start fewer threads than were asked for (OMP_DYNAMIC, OMP_THREAD_LIMIT), and fewer may need more: a job
        // of theirs is more KV heads, or all of them. Of those that divide the cells, the most need the most.
        const FlashAttention op(tensor);
        size = Workspace::size(op, threads);
        const int by_head = std::min<int64_t>(threads, Division::most_threads_by_head(op));
        for (int started = 1; started <= by_head; started++) {
            size = std::max(size, Workspace::size(op, started));
        }
        return true;
    }

    // Every thread of llama.cpp's pool calls this and computes its part.
    bool compute_forward(ggml_compute_params * params, ggml_tensor * result) override {
        const FlashAttention op(result);
        const Division division(op, params->nth);
        const Workspace workspace(op, division, params->nth, params->wdata);
        VisibleCells visible(workspace.cells + params->ith * op.max_cell_tiles());
        QueryProducts products(op, workspace.queries + params->ith * Workspace::queries_size(op, division));
        int64_t visible_tile = -1, queried = -1;
        const auto attention = [&](int64_t job) {
            const int64_t jobs_of_a_tile = op.kv_heads / division.kv_heads;
            const int64_t tile = job / jobs_of_a_tile, kv_head = job % jobs_of_a_tile * division.kv_heads;
            const int64_t memory = division.by_head ? params->ith : tile;
            if (tile != visible_tile) {
                const int64_t first = tile * op.tile_tokens;
                visible.find(op, first, std::min(op.tile_tokens, op.tokens - first));
                visible_tile = tile;
            }
            const size_t size = TileAttention::memory_size(op, division.kv_heads, division.parts);
            return TileAttention(op, tile, kv_head, division.kv_heads, division.parts, visible,
                                 workspace.tiles + memory * size,
                                 workspace.sums + params->ith * TileAttention::thread_memory_size(op));
        };
        const auto compute_scores = [&](int64_t job, int64_t part) {
            const TileAttention tile = attention(job);
            if (job != queried) {
                tile.set_queries(products);
                queried = job;
            }
            tile.compute_scores(part, products);
        };
        if (params->ith == 0) {
            std::fill_n(workspace.next_jobs, 5, 0);
        }
        // Waits for the other threads, then takes jobs until none is left.
        int phase = 0;
        const auto each = [&](int64_t jobs, auto act) {
            ggml_barrier(params->threadpool);
            std::atomic<int64_t> & next = workspace.next_jobs[phase++];
            for (int64_t job = next++; job < jobs; job = next++) {
                act(job);
            }
        };
        const int64_t jobs = division.jobs, all = jobs * division.parts;
        if (division.by_head) {
            each(jobs, [&](int64_t job) {
                compute_scores(job, 0);
                const TileAttention tile = attention(job);
                TileAttention::for_each_step([&](auto step) { (tile.*step)(0); });
                tile.finish(result);
            });
            return true;
        }
        each(all, [&](int64_t i) { compute_scores(i % jobs, i / jobs); });
        TileAttention::for_each_step([&](auto step) {
            each(all, [&](int64_t i) { (attention(i % jobs).*step)(i / jobs); });
        });
        each(jobs, [&](int64_t i) { attention(i).finish(result); });
        return true;
    }
};

ggml::cpu::tensor_traits * attention_traits(const ggml_tensor * op) {
    static FlashAttentionTraits traits;
    return op->op == GGML_OP_FLASH_ATTN_EXT && !ggml_is_empty(op) && FlashAttention::supports(op)
               ? &traits
               : nullptr;
}

}  // namespace
