/* The dot products of queries with keys, by tiles of bfloat16.
 *
 * Keys and queries are sums of two numbers in bfloat16 each, and all four products are added. Keys in half precision are such
 * sums exactly; of other keys, and of queries, 16 bits remain. A product is computed in the same way for one query and for
 * many: keys are always the left operand, one in each row, and queries the right one, one in each column.
 */
#pragma once

#include "amx_tiles.h"
#include "attention_op.h"
#include "avx512_words.h"

namespace {

// Rows 0 to 3 of the result have lanes 0 to 3 of all rows.
KERNEL inline void transpose_four(Words rows[LANES]) {
    __m512i half[4];
    for (int i = 0; i < 4; i++) {
        const auto lanes = [&](int row) KERNEL {
            return _mm_load_si128(reinterpret_cast<const __m128i *>(rows + row + i));
        };
        half[i] = _mm512_castsi128_si512(lanes(0));
        half[i] = _mm512_inserti32x4(half[i], lanes(4), 1);
        half[i] = _mm512_inserti32x4(half[i], lanes(8), 2);
        half[i] = _mm512_inserti32x4(half[i], lanes(12), 3);
    }
    const __m512i a = _mm512_unpacklo_epi32(half[0], half[1]), b = _mm512_unpacklo_epi32(half[2], half[3]);
    const __m512i c = _mm512_unpackhi_epi32(half[0], half[1]), d = _mm512_unpackhi_epi32(half[2], half[3]);
    rows[0] = Words(_mm512_unpacklo_epi64(a, b));
    rows[1] = Words(_mm512_unpackhi_epi64(a, b));
    rows[2] = Words(_mm512_unpacklo_epi64(c, d));
    rows[3] = Words(_mm512_unpackhi_epi64(c, d));
}

// 32 numbers: the first and the last 16.
struct StepNumbers {
    Floats first, last;
};

KERNEL inline StepNumbers load_numbers(const float * numbers, bool full) {
    return {load_unaligned(numbers), full ? load_unaligned(numbers + LANES) : broadcast(0.f)};
}

KERNEL inline StepNumbers load_numbers(const ggml_fp16_t * halves, bool full) {
    return {load_halves(halves), full ? load_halves(halves + LANES) : broadcast(0.f)};
}

KERNEL inline StepNumbers load_numbers(const block_q8_0 * block, bool) {
    const Floats scale = broadcast(to_float(block->d));
    return {multiply(to_floats(load_bytes(block->qs)), scale),
            multiply(to_floats(load_bytes(block->qs + LANES)), scale)};
}

KERNEL inline StepNumbers load_numbers(const block_q4_0 * block, bool) {
    const Floats scale = broadcast(to_float(block->d));
    const Words pairs = load_bytes(block->qs);
    return {multiply(to_floats(SignedWords(pairs & 15) - 8), scale),
            multiply(to_floats(SignedWords(pairs >> 4) - 8), scale)};
}

// 32 numbers as the sums of two in bfloat16. A word has one of the first 16, and one of the last in its upper half. Numbers in
// half precision need no rounding.
struct BrainPieces {
    Words large, small;

    KERNEL __attribute__((always_inline)) BrainPieces(StepNumbers numbers, bool are_halves) {
        const Words upper = broadcast(0xffff0000u);
        const Words first = Words(numbers.first), last = Words(numbers.last);
        large = pack(first, last);
        const Floats first_rest = subtract(numbers.first, Floats(first & upper));
        const Floats last_rest = subtract(numbers.last, Floats(last & upper));
        const Words half = broadcast(are_halves ? 0 : 0x8000u);
        small = pack(Words(first_rest) + half, Words(last_rest) + half);
    }

  private:
    KERNEL static Words pack(Words first, Words last) {
        return Words(_mm512_mask_blend_epi16(0xaaaaaaaa, __m512i(first >> 16), __m512i(last)));
    }
};

// Those of the queries of a query tile with keys of some KV heads.
class QueryProducts {
  public:
    // `memory` has room for memory_size().
    QueryProducts(const FlashAttention & op, char * memory)
        : op(op), key_dim(op.keys->ne[0]), steps(steps_of(op)), blocks(blocks_of(op)),
          queries(reinterpret_cast<Pieces *>(memory)), tiles(ALL_TILES) {}

    static size_t memory_size(const FlashAttention & op, int64_t kv_heads) {
        return kv_heads * blocks_of(op) * steps_of(op) * sizeof(Pieces);
    }

    // Takes the queries of some tokens and KV heads.
    KERNEL void set_queries(int64_t first_token, int64_t tokens, int64_t first_kv_head, int64_t kv_heads) {
        const int64_t rows = tokens * op.gqa_group;
        for (int64_t kv_head = 0; kv_head < kv_heads; kv_head++) {
            for (int64_t row = 0; row < rows; row += LANES) {
                for (int64_t step = 0; step < steps; step++) {
                    Pieces & pieces = queries_of(kv_head, row / LANES)[step] = Pieces();
                    for (int64_t i = row; i < std::min(row + LANES, rows); i++) {
                        const int64_t head = (first_kv_head + kv_head) * op.gqa_group + i % op.gqa_group;
                        const float * query = op.query(first_token + i / op.gqa_group, head);
                        pieces.set(i - row, load_numbers(query + step * STEP, is_full(step)), false);
                    }
                    transpose(pieces.large);
                    transpose(pieces.small);
                }
            }
        }
    }

    // Reads the keys of a tile of cells, of the KV head that is `kv_head` after the first.
    KERNEL void read(const HeadCells & cells, int64_t kv_head, const CellTile & tile) {
        convert(cells, tile);
        const int64_t first = __builtin_ctzll(tile.tokens) * op.gqa_group;
        const int64_t end = (64 - __builtin_clzll(tile.tokens)) * op.gqa_group;
        for (int64_t block = first / LANES; block * LANES < end; block++) {
            Words * of_block = products + block * LANES;
            multiply(queries_of(kv_head, block), of_block);
            if (end <= 4) {
                transpose_four(of_block);
            } else {
                transpose(of_block);
            }
        }
    }

    // The products of a query with the keys read last, a key in each lane. Rows are the queries that read the KV head, sorted
    // by token.
    KERNEL Floats of_row(int64_t row) const { return Floats(products[row]); }

  private:
    static constexpr int64_t STEP = 32;  // numbers of a key that a row of a tile has
    static constexpr TileConfiguration ALL_TILES = {
        1, 0, {}, {64, 64, 64, 64, 64, 64, 64, 64}, {16, 16, 16, 16, 16, 16, 16, 16}};

    // 16 keys or queries: a step of each in a row; those of queries are transposed.
    struct Pieces {
        Words large[LANES], small[LANES];

        KERNEL __attribute__((always_inline)) void set(int64_t row, StepNumbers numbers, bool are_halves) {
            const BrainPieces pieces(numbers, are_halves);
            large[row] = pieces.large;
            small[row] = pieces.small;
        }
    };

    const FlashAttention & op;
    const int64_t key_dim, steps, blocks;
    Pieces * const queries;  // [kv_head][block][step]
    const Tiles tiles;
    Pieces keys[MAX_HEAD_DIM / STEP];
    Words products[QUERY_TILE_ROWS];  // of a block at first with a key in each row
    static_assert(QUERY_TILE_ROWS % LANES == 0);

    static int64_t steps_of(const FlashAttention & op) { return (op.keys->ne[0] + STEP - 1) / STEP; }

    static int64_t blocks_of(const FlashAttention & op) {
        return (std::min(op.tile_tokens, op.tokens) * op.gqa_group + LANES - 1) / LANES;
    }

    // Whether a step has 32 numbers; else it has 16.
    bool is_full(int64_t step) const { return (step + 1) * STEP <= key_dim; }

    Pieces * queries_of(int64_t kv_head, int64_t block) const {
        return queries + (kv_head * blocks + block) * steps;
    }

    KERNEL void convert(const HeadCells & cells, const CellTile & tile) {
        cells.with_numbers(tile, [&](const auto * const * numbers) KERNEL {
            constexpr bool HALVES = std::is_same_v<decltype(numbers), const ggml_fp16_t * const *>;
            const int64_t full_steps = key_dim / STEP;
            for (int64_t cell = 0; cell < KV_TILE; cell++) {
                const auto * next = numbers[cell];
                for (int64_t step = 0; step < full_steps; step++, next += HALVES ? STEP : 1) {
                    keys[step].set(cell, load_numbers(next, true), HALVES);
                }
                if (full_steps < steps) {
                    keys[full_steps].set(cell, load_numbers(next, false), HALVES);
                }
            }
            return 0;
        });
    }

    // The keys, in rows, times a block of queries.
    KERNEL void multiply(const Pieces * block, Words * products) const {
        constexpr int SUMS = 0, LARGE_KEYS = 1, SMALL_KEYS = 2, LARGE_QUERIES = 3, SMALL_QUERIES = 4;
        zero_tile<SUMS>();
        for (int64_t step = 0; step < steps; step++) {
            load_tile<LARGE_KEYS>(keys[step].large, sizeof(Words));
            load_tile<LARGE_QUERIES>(block[step].large, sizeof(Words));
            multiply_brain_tiles<SUMS, LARGE_KEYS, LARGE_QUERIES>();
            load_tile<SMALL_QUERIES>(block[step].small, sizeof(Words));
            multiply_brain_tiles<SUMS, LARGE_KEYS, SMALL_QUERIES>();
            load_tile<SMALL_KEYS>(keys[step].small, sizeof(Words));
            multiply_brain_tiles<SUMS, SMALL_KEYS, LARGE_QUERIES>();
            multiply_brain_tiles<SUMS, SMALL_KEYS, SMALL_QUERIES>();
        }
        store_tile<SUMS>(products, sizeof(Words));
    }
};

}  // namespace
