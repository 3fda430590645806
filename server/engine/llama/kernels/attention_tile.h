// The scores of a query tile over some KV heads.
#pragma once

#include <atomic>

#include "attention_op.h"

namespace {

// Memory for the scores of a query tile over some KV heads. A row is a token and a head. Threads that divide the
// cells have statistics each: a part.
struct TileMemory {
    int64_t rows;                    // of all KV heads
    SoftmaxStatistics * statistics;  // [part][row]
    float * scores;   // KV_TILE for each row and each tile of its cells
    float * guesses;  // of the largest value, for each KV head
    char * sums;      // of weighted values, as attention_values.h and amx_values.h have them

    TileMemory(const FlashAttention & op, int64_t kv_heads, int64_t parts, char * memory)
        : rows(kv_heads * op.tile_rows()), statistics(reinterpret_cast<SoftmaxStatistics *>(memory)),
          scores(reinterpret_cast<float *>(statistics + parts * rows)),
          guesses(scores + kv_heads * scores_of_a_head(op)), sums(memory + size(op, kv_heads, parts)) {}

    static int64_t scores_of_a_head(const FlashAttention & op) {
        return op.max_cell_tiles() * op.gqa_group * KV_TILE;
    }

    // Without sums.
    static size_t size(const FlashAttention & op, int64_t kv_heads, int64_t parts) {
        const int64_t rows = kv_heads * op.tile_rows(), floats = kv_heads * (scores_of_a_head(op) + 1);
        return GGML_PAD(floats * sizeof(float) + parts * rows * sizeof(SoftmaxStatistics), 64);
    }
};

// The largest value that an earlier operation read of a KV head in the same memory: a guess of what the next one
// will find. A wrong guess costs time and changes no result.
inline std::atomic<float> & guessed_value(const FlashAttention & op, int64_t kv_head) {
    static std::atomic<float> guesses[4096];
    const uintptr_t tensor = reinterpret_cast<uintptr_t>(op.values->data) / 64;
    return guesses[(tensor * 31 + kv_head) % 4096];
}

// The scores of a query tile over some KV heads; the cells are divided into parts.
class ScoredTile {
  public:
    ScoredTile(const FlashAttention & op, int64_t tile, int64_t first_kv_head, int64_t kv_heads,
               int64_t parts, const VisibleCells & visible, char * memory)
        : op(op), visible(visible), memory(op, kv_heads, parts, memory),
          first_kv_head(first_kv_head), kv_heads(kv_heads), first_token(tile * op.tile_tokens),
          tokens(std::min(op.tile_tokens, op.tokens - first_token)), parts(parts) {}

    void set_queries(QueryProducts & products) const {
        products.set_queries(first_token, tokens, first_kv_head, kv_heads);
    }

    // Scores and the largest of them, for the cells of a part.
    KERNEL void compute_scores(int64_t part, QueryProducts & products) const {
        SoftmaxStatistics * statistics = memory.statistics + part * memory.rows;
        std::fill_n(statistics, memory.rows, SoftmaxStatistics{broadcast(-INFINITY), Longs{}, 0});
        for (int64_t head = 0; part == 0 && head < kv_heads; head++) {
            memory.guesses[head] = guessed_value(op, first_kv_head + head);
        }
        const int64_t group = op.gqa_group;
        const Floats scale = broadcast(op.scale);
        const bool only_scaled = op.largest_bias == 0 && op.soft_cap == 0;
        const HeadCells of_first_head(op.keys, first_kv_head);
        for (const CellTile * tile = begin(part); tile < end(part); tile++) {
            HeadCells cells = of_first_head;
            for (int64_t kv_head = 0; kv_head < kv_heads; kv_head++, cells.next_head()) {
                products.read(cells, kv_head, *tile, *std::min(tile + 1, end(part) - 1));
                float * scores = scores_of(*tile, kv_head);
                for (uint64_t seeing = tile->tokens; seeing != 0; seeing &= seeing - 1) {
                    const int64_t token = __builtin_ctzll(seeing);
                    const Floats mask = tile->is_plain ? broadcast(0.f) : mask_of(first_token + token, *tile);
                    SoftmaxStatistics * of_token = statistics + kv_head * op.tile_rows() + token * group;
                    for (int64_t i = 0; i < group; i++, scores += KV_TILE) {
                        const Floats product = products.of_row(token, i);
                        const int64_t head = (first_kv_head + kv_head) * group + i;
                        const Floats score =
                            only_scaled ? multiply_add(product, scale, mask) : score_of(product, mask, head);
                        store(scores, score);
                        of_token[i].largest_scores = maximum(of_token[i].largest_scores, score);
                    }
                }
            }
        }
    }

  protected:
    const FlashAttention & op;
    const VisibleCells & visible;
    const TileMemory memory;
    const int64_t first_kv_head, kv_heads, first_token, tokens, parts;

    const CellTile * begin(int64_t part) const {
        return visible.begin() + visible.count * part / parts;
    }

    const CellTile * end(int64_t part) const { return begin(part + 1); }

    // Rows are sorted by KV head, then token, then head of the GQA group.
    int64_t token_of(int64_t row) const {
        return first_token + row % op.tile_rows() / op.gqa_group;
    }

    int64_t head_of(int64_t row) const {
        return (first_kv_head + row / op.tile_rows()) * op.gqa_group + row % op.gqa_group;
    }

    template <typename Act>
    void for_each_row(Act act) const {
        for (int64_t first = 0; first < memory.rows; first += op.tile_rows()) {
            for (int64_t row = first; row < first + tokens * op.gqa_group; row++) {
                act(row);
            }
        }
    }

    // Those of a tile of cells: KV_TILE for each row that sees it.
    float * scores_of(const CellTile & tile, int64_t kv_head) const {
        return memory.scores + kv_head * TileMemory::scores_of_a_head(op) +
               tile.first_row * op.gqa_group * KV_TILE;
    }

    // Calls `act` with each row that sees a tile of cells of a KV head, and the place of its scores.
    template <typename Act>
    KERNEL void for_each_row(const CellTile & tile, int64_t kv_head, Act act) const {
        float * scores = scores_of(tile, kv_head);
        for (uint64_t tokens = tile.tokens; tokens != 0; tokens &= tokens - 1) {
            const int64_t first = kv_head * op.tile_rows() + __builtin_ctzll(tokens) * op.gqa_group;
            for (int64_t row = first; row < first + op.gqa_group; row++, scores += KV_TILE) {
                act(row, scores);
            }
        }
    }

    // The mask of a token for the cells of a tile; hides places without a cell.
    KERNEL Floats mask_of(int64_t token, const CellTile & tile) const {
        const ggml_fp16_t * mask = op.mask_of(token);
        if (tile.cells[KV_TILE - 1] - tile.cells[0] == KV_TILE - 1) {
            return load_halves(mask + tile.cells[0]);
        }
        ggml_fp16_t of_cells[KV_TILE];
        for (int64_t i = 0; i < KV_TILE; i++) {
            of_cells[i] = i < tile.count ? mask[tile.cells[i]] : MASKED;
        }
        return load_halves(of_cells);
    }

    // Scores, from the dot products of a query with keys.
    KERNEL Floats score_of(Floats products, Floats mask, int64_t head) const {
        if (op.largest_bias != 0) {
            mask = multiply(mask, broadcast(op.slope(head)));
        }
        if (op.soft_cap == 0) {
            return multiply_add(products, broadcast(op.scale), mask);
        }
        const Floats scaled = multiply(products, broadcast(op.scale / op.soft_cap));
        return multiply_add(hyperbolic_tangent(scaled), broadcast(op.soft_cap), mask);
    }

    // A sink is a score without a value.
    float sink(int64_t row) const {
        return op.sinks == nullptr ? -INFINITY
                                   : static_cast<const float *>(op.sinks->data)[head_of(row)];
    }

    float largest_score(int64_t row) const {
        float largest = sink(row);
        for (int64_t part = 0; part < parts; part++) {
            largest = std::max(largest, memory.statistics[part * memory.rows + row].largest_score());
        }
        return largest;
    }

    float largest_value(int64_t row) const {
        float largest = 0;
        for (int64_t part = 0; part < parts; part++) {
            largest = std::max(largest, memory.statistics[part * memory.rows + row].largest_value);
        }
        return largest;
    }
};

}  // namespace
