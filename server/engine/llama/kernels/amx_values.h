/* Softmax and the sums of weighted values, in integers.
 *
 * Weights are integers in units of 2^-19, and values integers of two bytes in units of 2^-15 of a power of two, the exponent of
 * a token's values: it is above the largest value that the token sees. Their products and sums are exact, so that they do not
 * depend on the order of the cells. Many rows are multiplied by tiles, byte by byte; few by vectors of words of 16 bits, which
 * need no transposed weights and values. The result is divided by the sum of the same weights.
 */
#pragma once

#include "amx_cells.h"
#include "amx_tiles.h"
#include "attention_tile.h"

namespace {

constexpr int WEIGHT_BITS = 19;  // so that six tiles of cells can be added in 32 bits

// exp(x) for x <= 0 in units of 2^-WEIGHT_BITS, and a negative number if x is none: 2^integer * 2^rest, with |rest| <= 1/2
// and 2^rest by a polynomial with a relative error below 2e-7 (minimax).
KERNEL inline SignedWords weights_of(Floats x) {
    x = maximum(broadcast(-30.f), x);  // gives zero
    constexpr float LOG2_E = 1.44269504f;
    // Adding three halves of 2^23 rounds to an integer, whose lowest bits are then those of the sum.
    const Floats sum = multiply_add(x, broadcast(LOG2_E), broadcast(0x1.8p23f));
    const Floats integer = subtract(sum, broadcast(0x1.8p23f));
    const Floats rest = _mm512_fmsub_ps(x, broadcast(LOG2_E), integer);
    constexpr float UNITS = 1 << WEIGHT_BITS;
    Floats power = broadcast(UNITS * 1.3276471e-3f);
    for (const float coefficient : {9.6755419e-3f, 5.5507131e-2f, 2.4022120e-1f, 6.9314694e-1f, 1.0000001f}) {
        power = multiply_add(power, rest, broadcast(UNITS * coefficient));
    }
    const __m512i units = _mm512_cvtps_epi32(Floats(Words(power) + (Words(sum) << 23)));
    return SignedWords(_mm512_max_epi32(units, _mm512_set1_epi32(-(1 << 24))));
}

// Consecutive tiles of cells that the same tokens see.
struct Run {
    const CellTile * tiles;
    const CellTile * end;  // of all tiles of the part
    int64_t count, rows;
    int64_t row[QUERY_TILE_ROWS];  // those that see the tiles, of a KV head

    Run(const FlashAttention & op, const CellTile * first, const CellTile * end) : tiles(first), end(end), count(0), rows(0) {
        for (uint64_t tokens = first->tokens; tokens != 0; tokens &= tokens - 1) {
            for (int64_t i = 0; i < op.gqa_group; i++) {
                row[rows++] = __builtin_ctzll(tokens) * op.gqa_group + i;
            }
        }
    }

    void extend(int64_t most) {
        while (count < most && tiles + count < end && tiles[count].tokens == tiles->tokens) {
            count++;
        }
    }
};

// The attention of a query tile over some KV heads.
class TileAttention : public ScoredTile {
  public:
    TileAttention(const FlashAttention & op, int64_t tile, int64_t first_kv_head, int64_t kv_heads, int64_t parts,
                  const VisibleCells & visible, char * memory, char * thread_memory)
        : ScoredTile(op, tile, first_kv_head, kv_heads, parts, visible, memory), columns(columns_of(op)),
          sums(reinterpret_cast<Sums *>(this->memory.sums)),
          buffers(*reinterpret_cast<Buffers *>(thread_memory)),
          values(reinterpret_cast<Values *>(thread_memory + sizeof(Buffers))),
          levels(reinterpret_cast<Levels *>(values + STEPS * columns)) {}

    static size_t memory_size(const FlashAttention & op, int64_t kv_heads, int64_t parts) {
        return TileMemory::size(op, kv_heads, parts) + parts * kv_heads * op.tile_rows() * columns_of(op) * sizeof(Sums);
    }

    // Of a thread.
    static size_t thread_memory_size(const FlashAttention & op) {
        return sizeof(Buffers) + columns_of(op) * (STEPS * sizeof(Values) + BLOCKS * sizeof(Levels));
    }

    // Calls `act` with what is to be done with each part after its scores, in turn.
    template <typename Act>
    static void for_each_step(Act act) {
        act(&TileAttention::add_part);
        act(&TileAttention::correct_guesses);
    }

    // The sums of the weighted values of a part, by guesses of the exponents; finds these.
    KERNEL void add_part(int64_t part) const {
        for_each_row([&](int64_t row) { clear(part, row); });
        for (int64_t kv_head = 0; kv_head < kv_heads; kv_head++) {
            add_in_units<true>(part, kv_head, std::max(1, int(memory.guesses[kv_head])));
        }
    }

    // The same once more for rows whose guess was wrong.
    KERNEL void correct_guesses(int64_t part) const {
        for (int64_t kv_head = 0; kv_head < kv_heads; kv_head++) {
            uint32_t exponents = 0;
            for (int64_t row = kv_head * op.tile_rows(); row < kv_head * op.tile_rows() + tokens * op.gqa_group; row++) {
                const int exponent = int(largest_value(row));
                if (exponent != 0 && exponent != INFINITE && exponent != std::max(1, int(memory.guesses[kv_head]))) {
                    clear(part, row);
                    exponents |= 1u << exponent;
                }
            }
            for (; exponents != 0; exponents &= exponents - 1) {
                add_in_units<false>(part, kv_head, __builtin_ctz(exponents));
            }
        }
    }

    // The attention of all rows. A token that sees no cell gets zeros.
    KERNEL void finish(ggml_tensor * result) const {
        std::fill_n(memory.guesses, kv_heads, 0.f);
        for_each_row([&](int64_t row) KERNEL {
            const int exponent = int(largest_value(row));
            const double sum = double(sum_of_weights(row));
            double unit = sum > 0 ? std::ldexp(1 / sum, exponent - 14 - 15 + scale_bits()) : 0;
            if (exponent == INFINITE) {
                unit = NAN;
            } else {
                float & guess = memory.guesses[row / op.tile_rows()];
                guess = std::max(guess, float(exponent));
            }
            auto * numbers = reinterpret_cast<float *>(static_cast<char *>(result->data) + token_of(row) * result->nb[2] +
                                                       head_of(row) * result->nb[1]);
            for (int64_t column = 0; column < columns; column++) {
                Sums total{};
                for (int64_t part = 0; part < parts; part++) {
                    const Sums & of_part = sums_of(part, row)[column];
                    total.first += of_part.first;
                    total.last += of_part.last;
                }
                // Two columns have 32 numbers: one the first four of each eight, the next one the others.
                alignas(64) float averages[LANES];
                const __m512d scale = _mm512_set1_pd(unit);
                const auto average = [&](Longs sums) KERNEL {
                    return _mm512_cvtpd_ps(_mm512_mul_pd(_mm512_cvtepi64_pd(__m512i(sums)), scale));
                };
                _mm256_store_ps(averages, average(total.first));
                _mm256_store_ps(averages + LANES / 2, average(total.last));
                for (int64_t four = 0; four < 4; four++) {
                    const int64_t d = column / 2 * 32 + column % 2 * 4 + four * 8;
                    if (d < op.value_dim) {
                        std::copy_n(averages + four * 4, 4, numbers + d);
                    }
                }
            }
        });
        for (int64_t head = 0; head < kv_heads; head++) {
            guessed_value(op, first_kv_head + head) = memory.guesses[head];
        }
    }

  private:
    static constexpr int INFINITE = 31;        // the exponent of what is infinite or no number in half precision
    static constexpr int64_t FEW_ROWS = 8;     // a choice
    static constexpr int64_t FEW_TILES = 6;    // 96 * 2^9 * 2^15 < 2^31
    static constexpr int64_t STEP_TILES = 4;   // of cells, in the 64 bytes of the row of a tile
    static constexpr int64_t STEPS = 8;        // that are multiplied while sums are in tiles
    static constexpr int64_t BLOCKS = QUERY_TILE_ROWS / LANES;
    static constexpr int LEVELS = 4, WEIGHT_BYTES = 3;
    // A level adds two products of bytes for each cell.
    static constexpr int64_t MAX_CELLS_OF_LEVELS = (int64_t(1) << 31) / (2 * 255 * 255);

    // 16 sums of weighted values.
    struct Sums {
        Longs first, last;
    };

    // Values of a step of cells: 16 numbers, each of four cells in a word: those with the same place in their tiles.
    struct Values {
        Words low[KV_TILE], high[KV_TILE];
    };

    // Sums of products of bytes in units of 256^level, of 16 rows and 16 numbers.
    using Levels = Words[LEVELS][LANES];

    struct Buffers {
        Words bytes[STEPS][WEIGHT_BYTES][LANES];  // of the weights of a block of rows
        Words words[FEW_ROWS][2][FEW_TILES / 2];  // of weights: low and high ones, of two cells in a lane
        const void * cells[FEW_TILES][KV_TILE];
    };

    const int64_t columns;
    Sums * const sums;  // [part][row][column]
    Buffers & buffers;
    Values * const values;  // [step][column]
    Levels * const levels;  // [block][column]

    static int64_t columns_of(const FlashAttention & op) { return (op.value_dim + 31) / 32 * 2; }

    int scale_bits() const {
        return op.values->type == GGML_TYPE_Q8_0   ? SCALE_BITS<block_q8_0>
               : op.values->type == GGML_TYPE_Q4_0 ? SCALE_BITS<block_q4_0>
                                                   : SCALE_BITS<ggml_fp16_t>;
    }

    Sums * sums_of(int64_t part, int64_t row) const { return sums + (part * memory.rows + row) * columns; }

    void clear(int64_t part, int64_t row) const { std::fill_n(sums_of(part, row), columns, Sums()); }

    int64_t sum_of_weights(int64_t row) const {
        int64_t sum = 0;
        for (int64_t part = 0; part < parts; part++) {
            sum += memory.statistics[part * memory.rows + row].sum();
        }
        if (op.sinks != nullptr) {
            const double weight = std::exp(double(sink(row)) - largest_score(row));
            sum += std::llround(std::ldexp(weight, WEIGHT_BITS));
        }
        return sum;
    }

    // Adds the values of a KV head, in units of an exponent, of all rows the first time, and then of those with this exponent.
    template <bool FIRST>
    KERNEL void add_in_units(int64_t part, int64_t kv_head, int exponent) const {
        const int bits = 15 + 14 - exponent;
        if (bits <= 15) {
            add<FIRST>(part, kv_head, exponent, Factor{_mm512_set1_ph(_Float16(std::ldexp(1.f, bits)))});
        } else {
            add<FIRST>(part, kv_head, exponent, LargeFactor{_mm512_set1_ph(_Float16(bits))});
        }
    }

    template <bool FIRST, typename AnyFactor>
    KERNEL void add(int64_t part, int64_t kv_head, int exponent, AnyFactor factor) const {
        const HeadCells cells(op.values, first_kv_head + kv_head);
        const int64_t first_row = kv_head * op.tile_rows();
        SoftmaxStatistics * statistics = memory.statistics + part * memory.rows + first_row;
        float largest[QUERY_TILE_ROWS];
        bool added[QUERY_TILE_ROWS];
        for (int64_t row = 0; row < tokens * op.gqa_group; row++) {
            largest[row] = largest_score(first_row + row);
            added[row] = FIRST || int(largest_value(first_row + row)) == exponent;
        }
        int64_t cells_of_levels = 0;
        bool in_levels[BLOCKS] = {};
        for (const CellTile * tile = begin(part); tile < end(part);) {
            Run run(op, tile, end(part));
            const bool few = run.rows <= FEW_ROWS;
            run.extend(few ? FEW_TILES : STEPS * STEP_TILES);
            tile += run.count;
            if (FIRST) {
                const float of_run = exponent_of(cells, run);
                for (int64_t i = 0; i < run.rows; i++) {
                    float & of_row = statistics[run.row[i]].largest_value;
                    of_row = std::max(of_row, of_run);
                }
            }
            // The weights of the tiles from `first` on, of a row that sees them.
            const auto weights = [&](int64_t i, int64_t first, auto & integers) KERNEL {
                const int64_t row = run.row[i];
                for (SignedWords & of_tile : integers) {
                    of_tile = SignedWords{};
                    if (first < run.count && added[row]) {
                        const float * scores = scores_of(run.tiles[first++], kv_head) + i * KV_TILE;
                        of_tile = weights_of(subtract(load(scores), broadcast(largest[row])));
                    }
                }
            };
            const auto add_weights = [&](int64_t row, SignedWords of_run) KERNEL {
                if (FIRST) {
                    add_to_statistics(statistics[row], of_run);
                }
            };
            if (few) {
                add_few(part, first_row, cells, run, factor, weights, add_weights);
                continue;
            }
            cells_of_levels += STEPS * STEP_TILES * KV_TILE;
            if (cells_of_levels > MAX_CELLS_OF_LEVELS) {
                carry(part, first_row, in_levels);
                cells_of_levels = STEPS * STEP_TILES * KV_TILE;
            }
            add_many(cells, run, factor, weights, add_weights, in_levels);
        }
        carry(part, first_row, in_levels);
    }

    // Sums of the weights of a lane, or a negative number if one of them is none.
    KERNEL static void add_to_statistics(SoftmaxStatistics & statistics, SignedWords weights) {
        if (_mm512_movepi32_mask(__m512i(weights)) != 0) {
            statistics.largest_value = INFINITE;
        }
        const __m512i lower = _mm512_cvtepi32_epi64(_mm512_castsi512_si256(__m512i(weights)));
        const __m512i upper = _mm512_cvtepi32_epi64(_mm512_extracti64x4_epi64(__m512i(weights), 1));
        statistics.sums += Longs(lower) + Longs(upper);
    }

    // Of the power of two above all numbers of a run, in half precision, or above the scales of quants.
    KERNEL static float exponent_of(const HeadCells & cells, const Run & run) {
        __m512i largest = _mm512_setzero_si512();
        for (const CellTile * tile = run.tiles; tile < run.tiles + run.count; tile++) {
            cells.with_numbers(*tile, [&](const auto * const * numbers) KERNEL {
                largest = _mm512_max_epu16(largest, largest_of_tile(numbers, cells.head_dim));
                return 0;
            });
        }
        const __m256i half = _mm256_max_epu16(_mm512_castsi512_si256(largest), _mm512_extracti64x4_epi64(largest, 1));
        const __m128i quarter = _mm_max_epu16(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
        // The smallest of complements.
        const __m128i smallest = _mm_minpos_epu16(_mm_xor_si128(quarter, _mm_set1_epi32(-1)));
        return float(std::max(1, (0xffff - _mm_extract_epi16(smallest, 0)) >> 10));
    }

    KERNEL static __m512i largest_of_tile(const ggml_fp16_t * const * cells, int64_t head_dim) {
        __m512i largest = _mm512_setzero_si512();
        const auto compare = [&](__m512i numbers) KERNEL {
            largest = _mm512_max_epu16(largest, _mm512_and_si512(numbers, _mm512_set1_epi16(0x7fff)));
        };
        for (int64_t i = 0; i < KV_TILE; i++) {
            int64_t d = 0;
            for (; d + 32 <= head_dim; d += 32) {
                compare(_mm512_loadu_si512(cells[i] + d));
            }
            if (d < head_dim) {
                compare(_mm512_maskz_loadu_epi16(0xffff, cells[i] + d));
            }
        }
        return largest;
    }

    template <typename Block>
    KERNEL static __m512i largest_of_tile(const Block * const * cells, int64_t head_dim) {
        uint16_t largest = 0;
        for (int64_t i = 0; i < KV_TILE; i++) {
            for (const Block * block = cells[i]; block < cells[i] + head_dim / BLOCK_SIZE; block++) {
                largest = std::max<uint16_t>(largest, block->d & 0x7fff);
            }
        }
        return _mm512_set1_epi16(int16_t(largest));
    }

    // Calls `act` with pointers to the numbers of each cell of some tiles, of their type.
    template <typename Act>
    KERNEL void with_cells(const HeadCells & cells, const Run & run, int64_t first, int64_t count, Act act) const {
        for (int64_t t = 0; t < count; t++) {
            // Weights of tiles that are not there are zero.
            const CellTile & tile = run.tiles[std::min(first + t, run.count - 1)];
            for (int64_t i = 0; i < KV_TILE; i++) {
                buffers.cells[t][i] = cells.data + tile.cells[i] * cells.cell_size;
            }
        }
        if (cells.type == GGML_TYPE_Q8_0) {
            act(block_q8_0());
        } else if (cells.type == GGML_TYPE_Q4_0) {
            act(block_q4_0());
        } else {
            act(ggml_fp16_t());
        }
    }

    // Brings a cell of the tiles after a run into the cache.
    void prefetch_next(const HeadCells & cells, const Run & run, int64_t tile, int64_t place) const {
        if (run.tiles + run.count + tile < run.end) {
            cells.prefetch(run.tiles[run.count + tile].cells[place]);
        }
    }

    // 32 numbers of a cell from `d` on.
    template <bool FULL, typename Number, typename AnyFactor>
    KERNEL __m512i integers(Number, int64_t tile, int64_t place, int64_t d, AnyFactor factor) const {
        constexpr int64_t STRIDE = std::is_same_v<Number, ggml_fp16_t> ? 32 : 1;
        const auto * numbers = static_cast<const Number *>(buffers.cells[tile][place]);
        return load_integers<FULL>(numbers + d / 32 * STRIDE, factor);
    }

    // Adds a run of at most FEW_TILES, seen by at most FEW_ROWS, by vectors.
    template <typename AnyFactor, typename Weights, typename AddWeights>
    KERNEL void add_few(int64_t part, int64_t first_row, const HeadCells & cells, const Run & run, AnyFactor factor,
                        Weights weights, AddWeights add_weights) const {
        const int64_t pairs = (run.count + 1) / 2;
        for (int64_t i = 0; i < run.rows; i++) {
            SignedWords of_row{};
            for (int64_t pair = 0; pair < pairs; pair++) {
                SignedWords of_tiles[2], low[2], high[2];
                weights(i, 2 * pair, of_tiles);
                for (int t = 0; t < 2; t++) {
                    of_row += of_tiles[t];
                    high[t] = (of_tiles[t] + (1 << 9)) >> 10;
                    low[t] = of_tiles[t] - (high[t] << 10);
                }
                const auto both = [](const SignedWords (&words)[2]) KERNEL {
                    const __m512i last = __m512i(words[1] << 16);
                    return Words(_mm512_mask_blend_epi16(0xaaaaaaaa, __m512i(words[0]), last));
                };
                buffers.words[i][0][pair] = both(low);
                buffers.words[i][1][pair] = both(high);
            }
            add_weights(run.row[i], of_row);
        }
        with_cells(cells, run, 0, 2 * pairs, [&](auto number) KERNEL {
            int64_t i = 0;
            const auto add_rows = [&](auto together) KERNEL {
                int64_t d = 0;
                for (; d + 32 <= op.value_dim; d += 32) {
                    add_rows_of<together, true>(number, part, first_row, cells, run, i, pairs, d, factor);
                }
                if (d < op.value_dim) {
                    add_rows_of<together, false>(number, part, first_row, cells, run, i, pairs, d, factor);
                }
                i += together;
            };
            while (i + 4 <= run.rows) {
                add_rows(std::integral_constant<int, 4>());
            }
            switch (run.rows - i) {
                case 3: add_rows(std::integral_constant<int, 3>()); break;
                case 2: add_rows(std::integral_constant<int, 2>()); break;
                case 1: add_rows(std::integral_constant<int, 1>()); break;
            }
        });
    }

    // Adds 32 numbers of values to the sums of `ROWS` rows, from the one at `first` in the run on.
    template <int ROWS, bool FULL, typename Number, typename AnyFactor>
    KERNEL void add_rows_of(Number number, int64_t part, int64_t first_row, const HeadCells & cells, const Run & run,
                            int64_t first, int64_t pairs, int64_t d, AnyFactor factor) const {
        __m512i low[ROWS][2], high[ROWS][2];
        for (int row = 0; row < ROWS; row++) {
            low[row][0] = low[row][1] = high[row][0] = high[row][1] = _mm512_setzero_si512();
        }
        for (int64_t pair = 0; pair < pairs; pair++) {
            for (int64_t place = 0; place < KV_TILE; place++) {
                if (d == 0 && first == 0) {
                    prefetch_next(cells, run, 2 * pair, place);
                    prefetch_next(cells, run, 2 * pair + 1, place);
                }
                const __m512i a = integers<FULL>(number, 2 * pair, place, d, factor);
                const __m512i b = integers<FULL>(number, 2 * pair + 1, place, d, factor);
                const __m512i values[2] = {_mm512_unpacklo_epi16(a, b), _mm512_unpackhi_epi16(a, b)};
                for (int row = 0; row < ROWS; row++) {
                    const auto & words = buffers.words[first + row];
                    const __m512i of_low = _mm512_set1_epi32(int32_t(words[0][pair][place]));
                    const __m512i of_high = _mm512_set1_epi32(int32_t(words[1][pair][place]));
                    for (int i = 0; i < 2; i++) {
                        low[row][i] = _mm512_dpwssd_epi32(low[row][i], values[i], of_low);
                        high[row][i] = _mm512_dpwssd_epi32(high[row][i], values[i], of_high);
                    }
                }
            }
        }
        for (int row = 0; row < ROWS; row++) {
            Sums * of_row = sums_of(part, first_row + run.row[first + row]) + d / LANES;
            for (int i = 0; i < 2; i++) {
                of_row[i].first += widened(low[row][i], 0) + (widened(high[row][i], 0) << 10);
                of_row[i].last += widened(low[row][i], 1) + (widened(high[row][i], 1) << 10);
            }
        }
    }

    // Half of 16 words.
    KERNEL static Longs widened(__m512i words, int half) {
        return Longs(_mm512_cvtepi32_epi64(half == 0 ? _mm512_castsi512_si256(words) : _mm512_extracti64x4_epi64(words, 1)));
    }

    // Adds a run to levels, by tiles.
    template <typename AnyFactor, typename Weights, typename AddWeights>
    KERNEL void add_many(const HeadCells & cells, const Run & run, AnyFactor factor, Weights weights, AddWeights add_weights,
                         bool * in_levels) const {
        const int64_t steps = (run.count + STEP_TILES - 1) / STEP_TILES;
        for (int64_t step = 0; step < steps; step++) {
            with_cells(cells, run, step * STEP_TILES, STEP_TILES, [&](auto number) KERNEL {
                for (int64_t place = 0; place < KV_TILE; place++) {
                    for (int64_t t = 0; t < STEP_TILES; t++) {
                        prefetch_next(cells, run, step * STEP_TILES + t, place);
                    }
                    const auto set = [&](auto is_full, int64_t d) KERNEL {
                        __m512i of_cells[STEP_TILES];
                        for (int64_t t = 0; t < STEP_TILES; t++) {
                            of_cells[t] = integers<is_full>(number, t, place, d, factor);
                        }
                        set_values(of_cells, values + step * columns + d / LANES, place);
                    };
                    int64_t d = 0;
                    for (; d + 32 <= op.value_dim; d += 32) {
                        set(std::true_type(), d);
                    }
                    if (d < op.value_dim) {
                        set(std::false_type(), d);
                    }
                }
            });
        }
        for (int64_t i = 0; i < run.rows;) {
            const int64_t block = run.row[i] / LANES;
            int64_t block_end = i;
            while (block_end < run.rows && run.row[block_end] / LANES == block) {
                block_end++;
            }
            if (block_end - i < LANES) {
                std::fill_n(buffers.bytes[0][0], steps * WEIGHT_BYTES * LANES, Words{});
            }
            SignedWords of_block{};
            for (; i < block_end; i++) {
                SignedWords of_row{};
                for (int64_t step = 0; step < steps; step++) {
                    SignedWords of_tiles[STEP_TILES];
                    weights(i, step * STEP_TILES, of_tiles);
                    Words(&bytes)[WEIGHT_BYTES][LANES] = buffers.bytes[step];
                    set_bytes<0>(of_tiles, bytes[0][run.row[i] % LANES]);
                    set_bytes<1>(of_tiles, bytes[1][run.row[i] % LANES]);
                    set_bytes<2>(of_tiles, bytes[2][run.row[i] % LANES]);
                    of_row += of_tiles[0] + of_tiles[1] + of_tiles[2] + of_tiles[3];
                }
                add_weights(run.row[i], of_row);
                of_block |= of_row;
            }
            if (_mm512_test_epi32_mask(__m512i(of_block), __m512i(of_block)) != 0) {
                multiply(steps, levels + block * columns, in_levels[block]);
                in_levels[block] = true;
            }
        }
    }

    // Byte t of each word of the result is byte BYTE of integers[t].
    template <int BYTE>
    KERNEL static void set_bytes(const SignedWords (&integers)[STEP_TILES], Words & bytes) {
        const __m512i byte = _mm512_broadcast_i32x4(
            _mm_setr_epi8(BYTE, BYTE, BYTE, BYTE, 4 + BYTE, 4 + BYTE, 4 + BYTE, 4 + BYTE, 8 + BYTE, 8 + BYTE, 8 + BYTE,
                          8 + BYTE, 12 + BYTE, 12 + BYTE, 12 + BYTE, 12 + BYTE));
        __m512i result = __m512i(integers[BYTE]);
        for (int t = 0; t < STEP_TILES; t++) {
            if (t != BYTE) {
                result = _mm512_mask_shuffle_epi8(result, 0x1111111111111111u << t, __m512i(integers[t]), byte);
            }
        }
        bytes = Words(result);
    }

    // The bytes of 32 numbers of four cells.
    KERNEL static void set_values(const __m512i (&integers)[STEP_TILES], Values * values, int64_t place) {
        constexpr __mmask32 UPPER_HALVES = 0xaaaaaaaa;
        const auto set = [&](Values & target, __m512i first, __m512i last) KERNEL {
            // Words have the lower bytes of two cells, then their upper bytes.
            target.low[place] = Words(_mm512_mask_blend_epi16(UPPER_HALVES, first, _mm512_slli_epi32(last, 16)));
            target.high[place] = Words(_mm512_mask_blend_epi16(UPPER_HALVES, _mm512_srli_epi32(first, 16), last));
        };
        set(values[0], _mm512_unpacklo_epi8(integers[0], integers[1]), _mm512_unpacklo_epi8(integers[2], integers[3]));
        set(values[1], _mm512_unpackhi_epi8(integers[0], integers[1]), _mm512_unpackhi_epi8(integers[2], integers[3]));
    }

    // Adds the products of some steps of a block of rows to its levels, or begins these.
    KERNEL void multiply(int64_t steps, Levels * of_block, bool begun) const {
        constexpr int LOW = 4, HIGH = 5;
        for (int64_t column = 0; column < columns; column++) {
            Levels & sums = of_block[column];
            if (begun) {
                load_tile<0>(sums[0], sizeof(Words));
                load_tile<1>(sums[1], sizeof(Words));
                load_tile<2>(sums[2], sizeof(Words));
                load_tile<3>(sums[3], sizeof(Words));
            } else {
                zero_tile<0>();
                zero_tile<1>();
                zero_tile<2>();
                zero_tile<3>();
            }
            for (int64_t step = 0; step < steps; step++) {
                const auto & bytes = buffers.bytes[step];
                const Values & of_step = values[step * columns + column];
                // In an order in which few products wait for the one before.
                load_tile<6>(bytes[0], sizeof(Words));
                load_tile<LOW>(of_step.low, sizeof(Words));
                multiply_unsigned_tiles<0, 6, LOW>();
                load_tile<HIGH>(of_step.high, sizeof(Words));
                multiply_unsigned_with_signed_tiles<1, 6, HIGH>();
                load_tile<7>(bytes[1], sizeof(Words));
                multiply_unsigned_with_signed_tiles<2, 7, HIGH>();
                load_tile<6>(bytes[2], sizeof(Words));
                multiply_unsigned_with_signed_tiles<3, 6, HIGH>();
                multiply_unsigned_tiles<1, 7, LOW>();
                multiply_unsigned_tiles<2, 6, LOW>();
            }
            store_tile<0>(sums[0], sizeof(Words));
            store_tile<1>(sums[1], sizeof(Words));
            store_tile<2>(sums[2], sizeof(Words));
            store_tile<3>(sums[3], sizeof(Words));
        }
    }

    // Moves the levels of the blocks that have some into the sums.
    KERNEL void carry(int64_t part, int64_t first_row, bool * in_levels) const {
        for (int64_t row = 0; row < tokens * op.gqa_group; row++) {
            for (int64_t column = 0; in_levels[row / LANES] && column < columns; column++) {
                const Levels & of_block = levels[row / LANES * columns + column];
                Sums & of_row = sums_of(part, first_row + row)[column];
                for (int level = 0; level < LEVELS; level++) {
                    const __m512i words = __m512i(of_block[level][row % LANES]);
                    of_row.first += widened(words, 0) << 8 * level;
                    of_row.last += widened(words, 1) << 8 * level;
                }
            }
        }
        std::fill_n(in_levels, BLOCKS, false);
    }
};

}  // namespace
