// The attention of a query tile over some KV heads, by vectors: weights take the place of scores (attention_sums.h).
#pragma once

#include "attention_products.h"
#include "attention_tile.h"

namespace {

class TileAttention : public ScoredTile {
  public:
    TileAttention(const FlashAttention & op, int64_t tile, int64_t first_kv_head, int64_t kv_heads, int64_t parts,
                  const VisibleCells & visible, char * memory, char *)
        : ScoredTile(op, tile, first_kv_head, kv_heads, parts, visible, memory),
          sums(reinterpret_cast<float *>(this->memory.sums)),
          smallest_weights(sums + parts * this->memory.rows * op.value_dim) {}

    static size_t memory_size(const FlashAttention & op, int64_t kv_heads, int64_t parts) {
        const int64_t floats = parts * kv_heads * op.tile_rows() * (op.value_dim + 1);
        return TileMemory::size(op, kv_heads, parts) + GGML_PAD(floats * sizeof(float), 64);
    }

    // Of a thread.
    static size_t thread_memory_size(const FlashAttention &) { return 0; }

    // Calls `act` with what is to be done with each part after its scores, in turn.
    template <typename Act>
    static void for_each_step(Act act) {
        act(&TileAttention::compute_weights);
        act(&TileAttention::add_part);
        act(&TileAttention::correct_guesses);
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
    KERNEL void add_part(int64_t part) const {
        for_each_row([&](int64_t row) { start_sums(part, row, memory.guesses[row / op.tile_rows()]); });
        SoftmaxStatistics * statistics = memory.statistics + part * memory.rows;
        const HeadCells of_first_head(op.values, first_kv_head);
        for_each_run(part, [&](const CellTile * first, int64_t count) KERNEL {
            HeadCells cells = of_first_head;
            for (int64_t kv_head = 0; kv_head < kv_heads; kv_head++, cells.next_head()) {
                for (const CellTile * tile = first + count; tile < std::min(first + 2 * count, end(part)); tile++) {
                    cells.prefetch(*tile);
                }
                const float largest = add_values(part, first, count, kv_head, cells);
                for_each_row(*first, kv_head, [&](int64_t row, float *) {
                    statistics[row].largest_value = std::max(statistics[row].largest_value, largest);
                });
            }
        });
    }

    // The same once more for rows whose guess was too far off.
    KERNEL void correct_guesses(int64_t part) const {
        bool all_right = true;
        for_each_row([&](int64_t row) {
            const float sum = sum_of_weights(row), largest = largest_value(row);
            const float guess = memory.guesses[row / op.tile_rows()];
            if (start_of_sums(sum, guess) == start_of_sums(sum, largest)) {
                smallest_weights[part * memory.rows + row] = INFINITY;
            } else {
                start_sums(part, row, largest);
                all_right = false;
            }
        });
        if (all_right) {
            return;
        }
        const HeadCells of_first_head(op.values, first_kv_head);
        for_each_run(part, [&](const CellTile * first, int64_t count) KERNEL {
            HeadCells cells = of_first_head;
            for (int64_t kv_head = 0; kv_head < kv_heads; kv_head++, cells.next_head()) {
                add_values(part, first, count, kv_head, cells);
            }
        });
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
                const float * of_row = sums + (part * memory.rows + row) * op.value_dim;
                for (int64_t d = 0; d < op.value_dim; d++) {
                    numbers[d] += of_row[d] - start;
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
    static constexpr int64_t NUMBERS_TOGETHER = 4096;  // 16 KB
    static_assert(NUMBERS_TOGETHER >= KV_TILE * MAX_HEAD_DIM);
    static constexpr int64_t MAX_RUN = 32;  // tiles, a bit for each

    float * const sums;              // of weighted values: [part][row][value_dim]
    float * const smallest_weights;  // [part][row]; infinite in rows whose sums are there

    int64_t rows_seeing(const CellTile & tile) const { return __builtin_popcountll(tile.tokens) * op.gqa_group; }

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
        std::fill_n(sums + (part * memory.rows + row) * op.value_dim, op.value_dim,
                    start_of_sums(sum, largest_value));
        smallest_weights[part * memory.rows + row] = smallest_weight(sum);
    }

    // Calls `act` with each run of tiles that the same tokens see and whose values fit into the L1 cache together. For few rows,
    // half as many: cells of the next run are prefetched together, and 8 KB of them take longer than 4 KB.
    template <typename Act>
    void for_each_run(int64_t part, Act act) const {
        const int64_t numbers = KV_TILE * op.value_dim;
        const int64_t for_many = std::min(MAX_RUN, NUMBERS_TOGETHER / numbers);
        const int64_t for_few = std::clamp<int64_t>(NUMBERS_TOGETHER / 2 / numbers, 1, MAX_RUN);
        for (const CellTile * first = begin(part); first < end(part);) {
            const int64_t most = rows_seeing(*first) < MANY_ROWS ? for_few : for_many;
            int64_t count = 1;
            while (count < most && first + count < end(part) && first[count].tokens == first->tokens) {
                count++;
            }
            act(first, count);
            first += count;
        }
    }

    // Adds the weighted values of a run of tiles of cells of a KV head, and returns a bound of the values.
    KERNEL float add_values(int64_t part, const CellTile * first, int64_t count, int64_t kv_head,
                            const HeadCells & cells) const {
        const float * weights[QUERY_TILE_ROWS];
        float * of_rows[QUERY_TILE_ROWS];
        unsigned tiles[QUERY_TILE_ROWS];
        const int64_t seeing = rows_seeing(*first), stride = seeing * KV_TILE;
        int64_t rows = 0;
        for_each_row(*first, kv_head, [&](int64_t row, float * of_row) KERNEL {
            const int64_t index = part * memory.rows + row;
            unsigned reaching = 0;
            for (int64_t tile = 0; tile < count; tile++) {
                reaching |= unsigned(any_reaches(load(of_row + tile * stride), smallest_weights[index])) << tile;
            }
            if (reaching != 0) {
                weights[rows] = of_row;
                of_rows[rows] = sums + index * op.value_dim;
                tiles[rows++] = reaching;
            }
        });
        float largest = 0;
        if (rows > 0 && rows < MANY_ROWS && (count == 1 || seeing < MANY_ROWS)) {
            for (const CellTile * tile = first; tile < first + count; tile++) {
                cells.with_numbers(*tile, [&](const auto * const * numbers) KERNEL {
                    with_count<MANY_ROWS - 1>(rows, [&](auto count) KERNEL {
                        largest = std::max(largest, add_cells<count>(numbers, op.value_dim, weights, of_rows));
                    });
                });
                for (int64_t row = 0; row < rows; row++) {
                    weights[row] += stride;
                }
            }
            return largest;
        }
        for (int64_t tile = 0; tile < count; tile++) {
            largest = std::max(largest, cells.magnitude(first[tile]));
        }
        if (rows > 0) {
            alignas(64) float values[NUMBERS_TOGETHER];
            for (int64_t tile = 0; tile < count; tile++) {
                cells.convert_tile(first[tile], values + tile * KV_TILE * op.value_dim);
            }
            add_weighted_values({values, op.value_dim, weights, stride, of_rows, tiles}, rows);
        }
        return largest;
    }
};

}  // namespace
