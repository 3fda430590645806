// The attention of a query tile over some KV heads.
#pragma once

#include <atomic>

#include "attention_op.h"

namespace {

// Memory for the attention of a query tile over some KV heads. A row is a token and a head. Threads that divide the
// cells have statistics and sums each: a part.
struct TileMemory {
    int64_t rows;                    // of all KV heads
    SoftmaxStatistics * statistics;  // [part][row]
    float * scores;  // KV_TILE for each row and each tile of its cells; later their weights
    float * sums;    // of weighted values: [part][row][value_dim]
    float * smallest_weights;  // [part][row]; infinite in rows whose sums are there
    float * guesses;           // of the largest value, for each KV head

    TileMemory(const FlashAttention & op, int64_t kv_heads, int64_t parts, char * memory)
        : rows(kv_heads * op.tile_rows()), statistics(reinterpret_cast<SoftmaxStatistics *>(memory)),
          scores(reinterpret_cast<float *>(statistics + parts * rows)),
          sums(scores + kv_heads * scores_of_a_head(op)),
          smallest_weights(sums + parts * rows * op.value_dim),
          guesses(smallest_weights + parts * rows) {}

    static int64_t scores_of_a_head(const FlashAttention & op) {
        return op.max_cell_tiles() * op.gqa_group * KV_TILE;
    }

    static size_t size(const FlashAttention & op, int64_t kv_heads, int64_t parts) {
        const int64_t rows = kv_heads * op.tile_rows();
        const int64_t floats =
            kv_heads * (scores_of_a_head(op) + 1) + parts * rows * (op.value_dim + 1);
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

// A query tile and some KV heads; the cells are divided into parts.
class TileAttention {
  public:
    TileAttention(const FlashAttention & op, int64_t tile, int64_t first_kv_head, int64_t kv_heads,
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
        for (const CellTile * tile = begin(part); tile < end(part); tile++) {
            for (int64_t kv_head = 0; kv_head < kv_heads; kv_head++) {
                const HeadCells cells(op.keys, first_kv_head + kv_head);
                if (tile + 1 < end(part)) {
                    cells.prefetch(tile[1]);
                }
                products.read(cells, kv_head, *tile);
                Floats mask = broadcast(0.f);
                for_each_row(*tile, kv_head, [&](int64_t row, float * scores) KERNEL {
                    if (row % op.gqa_group == 0) {
                        mask = mask_of(token_of(row), *tile);
                    }
                    const Floats of_row = products.of_row(row - kv_head * op.tile_rows());
                    const Floats score = score_of(of_row, mask, head_of(row));
                    store(scores, score);
                    Floats & largest = statistics[row].largest_scores;
                    largest = maximum(largest, score);
                });
            }
        }
    }

    // The weights of a part, in place of its scores, and their sums.
    KERNEL void compute_weights(int64_t part) const {
        SoftmaxStatistics * statistics = memory.statistics + part * memory.rows;
        for (int64_t kv_head = 0; kv_head < kv_heads; kv_head++) {
            float largest[QUERY_TILE_ROWS];
            const int64_t first = kv_head * op.tile_rows();
            for (int64_t row = 0; row < tokens * op.gqa_group; row++) {
                largest[row] = largest_score(first + row);
            }
            for (const CellTile * tile = begin(part); tile < end(part); tile++) {
                for_each_row(*tile, kv_head, [&](int64_t row, float * scores) KERNEL {
                    const Floats score = subtract(load(scores), broadcast(largest[row - first]));
                    const Floats weights = exponential(score);
                    store(scores, weights);
                    statistics[row].sums += fixed_point(weights);
                });
            }
        }
    }

    // The sums of the weighted values of a part, by guesses of the largest values; finds the largest ones.
    KERNEL void add_values(int64_t part) const {
        for_each_row([&](int64_t row) { start_sums(part, row, memory.guesses[row / op.tile_rows()]); });
        SoftmaxStatistics * statistics = memory.statistics + part * memory.rows;
        for (const CellTile * tile = begin(part); tile < end(part); tile++) {
            for (int64_t kv_head = 0; kv_head < kv_heads; kv_head++) {
                const HeadCells cells(op.values, first_kv_head + kv_head);
                if (tile + 1 < end(part)) {
                    cells.prefetch(tile[1]);
                }
                const float largest = cells.magnitude(*tile);
                for_each_row(*tile, kv_head, [&](int64_t row, float *) {
                    statistics[row].largest_value = std::max(statistics[row].largest_value, largest);
                });
                add_values(part, *tile, kv_head);
            }
        }
    }

    // The same once more for rows whose guess was too far off.
    KERNEL void correct_guesses(int64_t part) const {
        bool all_right = true;
        for_each_row([&](int64_t row) {
            const float sum = sum_of_weights(row), largest = largest_value(row);
            const float guess = memory.guesses[row / op.tile_rows()];
            if (start_of_sums(sum, guess) == start_of_sums(sum, largest)) {
                memory.smallest_weights[part * memory.rows + row] = INFINITY;
            } else {
                start_sums(part, row, largest);
                all_right = false;
            }
        });
        for (const CellTile * tile = begin(part); !all_right && tile < end(part); tile++) {
            for (int64_t kv_head = 0; kv_head < kv_heads; kv_head++) {
                add_values(part, *tile, kv_head);
            }
        }
    }

    // The attention of all rows. A token that sees no cell gets zeros.
    void finish(ggml_tensor * result) const {
        std::fill_n(memory.guesses, kv_heads, 0.f);
        for_each_row([&](int64_t row) {
            auto * numbers = reinterpret_cast<float *>(static_cast<char *>(result->data) +
                                                       token_of(row) * result->nb[2] +
                                                       head_of(row) * result->nb[1]);
            const float sum = sum_of_weights(row), largest = largest_value(row);
            const float start = start_of_sums(sum, largest);
            std::fill_n(numbers, op.value_dim, 0.f);
            for (int64_t part = 0; part < parts && sum > 0; part++) {
                const float * sums = memory.sums + (part * memory.rows + row) * op.value_dim;
                for (int64_t d = 0; d < op.value_dim; d++) {
                    numbers[d] += sums[d] - start;
                }
            }
            for (int64_t d = 0; d < op.value_dim && sum > 0; d++) {
                numbers[d] /= sum;
            }
            float & guess = memory.guesses[row / op.tile_rows()];
            guess = std::max(guess, largest);
        });
        for (int64_t head = 0; head < kv_heads; head++) {
            guessed_value(op, first_kv_head + head) = memory.guesses[head];
        }
    }

  private:
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

    // Calls `act` with each row that sees a tile of cells of a KV head, and the place of its scores.
    template <typename Act>
    KERNEL void for_each_row(const CellTile & tile, int64_t kv_head, Act act) const {
        float * scores = memory.scores + kv_head * TileMemory::scores_of_a_head(op) +
                         tile.first_row * op.gqa_group * KV_TILE;
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

    float sum_of_weights(int64_t row) const {
        int64_t sum = 0;
        for (int64_t part = 0; part < parts; part++) {
            sum += memory.statistics[part * memory.rows + row].sum();
        }
        if (op.sinks != nullptr) {
            const double weight = std::exp(double(sink(row)) - largest_score(row));
            sum += std::llround(std::ldexp(weight, 30));
        }
        return float(std::ldexp(double(sum), -30));
    }

    void start_sums(int64_t part, int64_t row, float largest_value) const {
        const float sum = sum_of_weights(row);
        std::fill_n(memory.sums + (part * memory.rows + row) * op.value_dim, op.value_dim,
                    start_of_sums(sum, largest_value));
        memory.smallest_weights[part * memory.rows + row] = smallest_weight(sum);
    }

    // Adds the weighted values of a tile of cells of a KV head.
    KERNEL void add_values(int64_t part, const CellTile & tile, int64_t kv_head) const {
        const float * weights[QUERY_TILE_ROWS];
        float * sums[QUERY_TILE_ROWS];
        int64_t count = 0;
        for_each_row(tile, kv_head, [&](int64_t row, float * of_row) KERNEL {
            const int64_t index = part * memory.rows + row;
            if (any_reaches(load(of_row), memory.smallest_weights[index])) {
                weights[count] = of_row;
                sums[count++] = memory.sums + index * op.value_dim;
            }
        });
        if (count > 0) {
            alignas(64) float values[KV_TILE * MAX_HEAD_DIM];
            HeadCells(op.values, first_kv_head + kv_head).convert_tile(tile, values);
            add_weighted_values(values, op.value_dim, count, weights, sums);
        }
    }
};

}  // namespace
