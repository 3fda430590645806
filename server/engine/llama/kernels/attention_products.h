// The dot products of queries with keys, by vectors.
#pragma once

#include "attention_op.h"

namespace {

// Those of the queries of a query tile with keys of some KV heads.
class QueryProducts {
  public:
    QueryProducts(const FlashAttention & op, char *) : op(op) {}

    static size_t memory_size(const FlashAttention &, int64_t) { return 0; }

    // Takes the queries of some tokens and KV heads.
    void set_queries(int64_t first_token, int64_t, int64_t first_kv_head, int64_t) {
        this->first_token = first_token;
        this->first_kv_head = first_kv_head;
    }

    // Reads the keys of a tile of cells, of the KV head that is `kv_head` after the first. Brings those of the next tile into
    // the cache.
    KERNEL void read(const HeadCells & cells, int64_t kv_head, const CellTile & tile, const CellTile & next) {
        cells.prefetch(next);
        cells.convert_tile(tile, keys);
        first_head = (first_kv_head + kv_head) * op.gqa_group;
    }

    // The products of a query with the keys read last, a key in each lane: of a token and a head, counted from the first ones
    // that were set and that read the KV head.
    KERNEL Floats of_row(int64_t token, int64_t head) const {
        const float * query = op.query(first_token + token, first_head + head);
        const int64_t key_dim = op.keys->ne[0];
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

  private:
    const FlashAttention & op;
    int64_t first_token, first_kv_head, first_head;
    alignas(64) float keys[KV_TILE * MAX_HEAD_DIM];
};

}  // namespace
