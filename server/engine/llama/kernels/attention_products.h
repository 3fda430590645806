/* The dot products of queries with keys, by vectors.
 *
 * Few queries multiply keys number by number, and then add the lanes of each sum (attention_few.h). Many have the keys
 * transposed, one in each lane, and broadcast their numbers: so nothing is left to add across lanes. They add products in the
 * same order, so that it makes no difference to the result.
 */
#pragma once

#include "attention_few.h"
#include "lane_products.h"

namespace {

// Those of the queries of a query tile with keys of some KV heads.
class QueryProducts {
  public:
    // `memory` has room for memory_size().
    QueryProducts(const FlashAttention & op, char * memory)
        : op(op), key_dim(op.keys->ne[0]), steps(key_dim / LANES), blocks(blocks_of(op)),
          queries(reinterpret_cast<float *>(memory)) {}

    static size_t memory_size(const FlashAttention & op, int64_t kv_heads) {
        return kv_heads * blocks_of(op) * ROWS * op.keys->ne[0] * sizeof(float);
    }

    // Takes the queries of some tokens and KV heads.
    KERNEL void set_queries(int64_t first_token, int64_t tokens, int64_t first_kv_head, int64_t kv_heads) {
        this->first_token = first_token;
        this->first_kv_head = first_kv_head;
        const int64_t rows = tokens * op.gqa_group;
        for (int64_t kv_head = 0; rows >= MANY_ROWS && kv_head < kv_heads; kv_head++) {
            for (int64_t place = 0; place < (rows + ROWS - 1) / ROWS * ROWS; place++) {
                const int64_t row = std::min(place, rows - 1);  // the last one again where a block has places left
                const int64_t head = (first_kv_head + kv_head) * op.gqa_group + row % op.gqa_group;
                const float * query = op.query(first_token + row / op.gqa_group, head);
                place_columns(query, steps, ROWS, block_of(kv_head, place) + place % ROWS);
            }
        }
    }

    // Reads the keys of a tile of cells, of the KV head that is `kv_head` after the first. Brings those of the next tile into
    // the cache.
    KERNEL void read(const HeadCells & cells, int64_t kv_head, const CellTile & tile, const CellTile & next) {
        cells.prefetch(next);
        if (__builtin_popcountll(tile.tokens) * op.gqa_group >= MANY_ROWS) {
            cells.convert_tile(tile, keys);
            multiply_transposed(kv_head, tile.tokens);
        } else {
            cells.with_numbers(tile, [&](const auto * const * numbers) KERNEL {
                multiply_few(numbers, kv_head, tile.tokens);
                return 0;
            });
        }
    }

    // The products of a query with the keys read last, a key in each lane: of a token and a head, counted from the first ones
    // that were set and that read the KV head.
    KERNEL Floats of_row(int64_t token, int64_t head) const { return products[token * op.gqa_group + head]; }

  private:
    // Queries multiplied together. With AVX-512 their sums stay in registers; with AVX2, where some do not, three take longer.
    static constexpr int64_t ROWS = 6;
    static_assert(QUERY_TILE_ROWS % ROWS == 0);

    const FlashAttention & op;
    const int64_t key_dim, steps, blocks;
    float * const queries;  // [kv_head][block][place][row]
    int64_t first_token, first_kv_head;
    alignas(64) float keys[KV_TILE * MAX_HEAD_DIM];
    alignas(64) float transposed[KV_TILE * MAX_HEAD_DIM];  // [place][key]
    Floats products[QUERY_TILE_ROWS];

    static int64_t blocks_of(const FlashAttention & op) {
        return (op.tile_rows() + ROWS - 1) / ROWS;
    }

    float * block_of(int64_t kv_head, int64_t row) const {
        return queries + (kv_head * blocks + row / ROWS) * ROWS * key_dim;
    }

    // The products of keys, where they lie, with the queries of some tokens.
    template <typename Number>
    KERNEL void multiply_few(const Number * const * cells, int64_t kv_head, uint64_t tokens) {
        const float * of_rows[MANY_ROWS];
        int64_t places[MANY_ROWS];
        int64_t rows = 0;
        for (; tokens != 0; tokens &= tokens - 1) {
            const int64_t token = __builtin_ctzll(tokens);
            for (int64_t head = 0; head < op.gqa_group; head++) {
                of_rows[rows] = op.query(first_token + token, (first_kv_head + kv_head) * op.gqa_group + head);
                places[rows++] = token * op.gqa_group + head;
            }
        }
        with_count<MANY_ROWS - 1>(rows, [&](auto count) KERNEL {
            Floats results[count];
            multiply_keys<count>(cells, key_dim, of_rows, results);
            for (int64_t row = 0; row < count; row++) {
                products[places[row]] = results[row];
            }
        });
    }

    // The products of the keys read last with the queries of some tokens and those between them.
    KERNEL void multiply_transposed(int64_t kv_head, uint64_t tokens) {
        constexpr int64_t WORDS = 8;
        for (int64_t d = 0; d < key_dim; d += WORDS) {
            Words numbers[WORDS];
            load_words<WORDS>(reinterpret_cast<const char *>(keys + d), key_dim * sizeof(float), numbers);
            for (int64_t i = 0; i < WORDS; i++) {
                store(transposed + place_of_column(d + i, steps) * KV_TILE, Floats(numbers[i]));
            }
        }
        const int64_t first = __builtin_ctzll(tokens) * op.gqa_group / ROWS * ROWS;
        const int64_t end = (64 - __builtin_clzll(tokens)) * op.gqa_group;
        for (int64_t row = first; row < end; row += ROWS) {
            multiply_columns<ROWS>(transposed, block_of(kv_head, row), steps, products + row);
        }
    }
};

}  // namespace
