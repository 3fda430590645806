// Keys and values in KV cells: in half precision, Q8_0 and Q4_0.
#pragma once

#include <algorithm>

#include "blocks.h"
#include "ggml-cpu-impl.h"

namespace {

// Queries times the heads of a GQA group. A choice: 24 to 192 rows take the same time with head dimensions
// of 64 and 128, with AVX2 and AVX-512; 16 rows take a tenth more.
constexpr int64_t QUERY_TILE_ROWS = 48;
// The KV tiles of keys and of values are 32 KB together with AVX-512, the size of an L1 cache.
constexpr int64_t MAX_HEAD_DIM = 256;
constexpr ggml_fp16_t MASKED = 0xfc00;  // -infinity

// As many cells as a register has lanes, and which tokens of a query tile see all of them.
struct CellTile {
    int32_t cells[KV_TILE];  // from `count` on, the first one again
    int32_t count;
    int32_t first_row;  // in the scores of the query tile: one row for each token before
    uint64_t tokens;    // a bit for each
    bool is_plain;      // whether the mask is zero for all of these and all cells
};

KERNEL inline void convert(const ggml_fp16_t * halves, int64_t head_dim, float * numbers) {
    for (int64_t d = 0; d < head_dim; d += LANES) {
        store(numbers + d, load_halves(halves + d));
    }
}

KERNEL inline void convert(const block_q8_0 * blocks, int64_t head_dim, float * numbers) {
    for (const float * end = numbers + head_dim; numbers < end; blocks++) {
        const Floats scale = broadcast(to_float(blocks->d));
        for (int64_t i = 0; i < QK8_0; i += LANES, numbers += LANES) {
            store(numbers, multiply(to_floats(load_bytes(blocks->qs + i)), scale));
        }
    }
}

// Quants i and i + 16 are in one byte.
KERNEL inline void convert(const block_q4_0 * blocks, int64_t head_dim, float * numbers) {
    for (const float * end = numbers + head_dim; numbers < end; blocks++, numbers += QK4_0) {
        const Floats scale = broadcast(to_float(blocks->d));
        for (int64_t i = 0; i < QK4_0 / 2; i += LANES) {
            const Words pairs = load_bytes(blocks->qs + i);
            const SignedWords lower = SignedWords(pairs & 15) - 8;
            const SignedWords upper = SignedWords(pairs >> 4) - 8;
            store(numbers + i, multiply(to_floats(lower), scale));
            store(numbers + i + QK4_0 / 2, multiply(to_floats(upper), scale));
        }
    }
}

KERNEL inline float largest_magnitude(const ggml_fp16_t * const cells[KV_TILE], int64_t head_dim) {
    Halves largest{};
    for (int64_t d = 0; d < head_dim; d += LANES) {
        for (int64_t i = 0; i < KV_TILE; i++) {
            largest = larger_magnitudes(largest, cells[i] + d);
        }
    }
    return horizontal_max(to_floats(largest));
}

// A bound: quants of Q8_0 are at most 127, those of Q4_0 at least -8.
template <typename Block>
KERNEL inline float largest_magnitude(const Block * const cells[KV_TILE], int64_t head_dim) {
    float largest = 0;
    for (int64_t i = 0; i < KV_TILE; i++) {
        for (const Block * block = cells[i]; block < cells[i] + head_dim / BLOCK_SIZE; block++) {
            largest = std::max(largest, std::fabs(to_float(block->d)));
        }
    }
    return largest * (IS_Q8_0<Block> ? 127 : 8);
}

// The keys, or the values, of one KV head.
struct HeadCells {
    const char * data;
    int64_t cell_size, head_size, head_dim;  // bytes from cell to cell, bytes of a head, its numbers
    ggml_type type;

    HeadCells(const ggml_tensor * tensor, int64_t kv_head)
        : data(static_cast<const char *>(tensor->data) + kv_head * tensor->nb[2]),
          cell_size(tensor->nb[1]), head_size(ggml_row_size(tensor->type, tensor->ne[0])),
          head_dim(tensor->ne[0]), type(tensor->type) {}

    // Calls `act` with pointers to the numbers of each cell, of their type.
    template <typename Act>
    auto with_numbers(const CellTile & tile, Act act) const {
        const auto pointers = [&](auto example) {
            const decltype(example) * numbers[KV_TILE];
            for (int64_t i = 0; i < KV_TILE; i++) {
                const char * cell = data + tile.cells[i] * cell_size;
                numbers[i] = reinterpret_cast<const decltype(example) *>(cell);
            }
            return act(numbers);
        };
        return type == GGML_TYPE_Q8_0   ? pointers(block_q8_0())
               : type == GGML_TYPE_Q4_0 ? pointers(block_q4_0())
                                        : pointers(ggml_fp16_t());
    }

    // The numbers of the cells of a tile in single precision, cell by cell.
    KERNEL void convert_tile(const CellTile & tile, float * numbers) const {
        with_numbers(tile, [&](const auto * const * cells) KERNEL {
            for (int64_t i = 0; i < KV_TILE; i++) {
                convert(cells[i], head_dim, numbers + i * head_dim);
            }
            return 0;
        });
    }

    // A bound of all numbers of the cells of a tile, without signs, by these numbers alone.
    KERNEL float magnitude(const CellTile & tile) const {
        return with_numbers(tile, [&](const auto * const * cells) KERNEL {
            return largest_magnitude(cells, head_dim);
        });
    }

    void prefetch(const CellTile & tile) const {
        for (int64_t i = 0; i < KV_TILE; i++) {
            prefetch(tile.cells[i]);
        }
    }

    // Into the L2 cache: with Zen 4, prompts over 8,192 cells take a seventh less time than with the L1 cache.
    void prefetch(int32_t cell) const {
        for (int64_t offset = 0; offset < head_size; offset += 64) {
            __builtin_prefetch(data + cell * cell_size + offset, 0, 2);
        }
    }
};

// Whether keys or values have a supported type and shape.
bool supports_cells(const ggml_tensor * tensor) {
    const ggml_type type = tensor->type;
    const bool quantized = type == GGML_TYPE_Q8_0 || type == GGML_TYPE_Q4_0;
    return (type == GGML_TYPE_F16 || quantized) && tensor->nb[0] == ggml_type_size(type) &&
           tensor->ne[0] % (quantized ? BLOCK_SIZE : LANES) == 0 &&
           tensor->ne[0] <= MAX_HEAD_DIM && tensor->ne[1] <= MAX_CELLS && tensor->ne[3] == 1;
}

}  // namespace
