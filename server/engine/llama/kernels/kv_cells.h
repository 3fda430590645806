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

// Numbers of a cell that are read together: a block, or as many as a register has lanes.
template <typename Number>
constexpr int64_t READ_TOGETHER = BLOCK_SIZE;
template <>
inline constexpr int64_t READ_TOGETHER<ggml_fp16_t> = LANES;

// What an array of pointers to cells points to.
template <typename Cells>
using NumberOf = std::remove_cv_t<std::remove_pointer_t<std::remove_cv_t<std::remove_pointer_t<Cells>>>>;

template <typename Number>
using NumbersRead = Floats[READ_TOGETHER<Number> / LANES];

// The numbers from `first` on, in single precision.
KERNEL inline void read_numbers(const ggml_fp16_t * cell, int64_t first, NumbersRead<ggml_fp16_t> & numbers) {
    numbers[0] = load_halves(cell + first);
}

KERNEL inline void read_numbers(const block_q8_0 * cell, int64_t first, NumbersRead<block_q8_0> & numbers) {
    const block_q8_0 & block = cell[first / QK8_0];
    const Floats scale = broadcast(to_float(block.d));
#pragma GCC unroll 4
    for (int64_t i = 0; i < QK8_0 / LANES; i++) {
        numbers[i] = multiply(to_floats(load_bytes(block.qs + i * LANES)), scale);
    }
}

// Quants i and i + 16 are in one byte.
KERNEL inline void read_numbers(const block_q4_0 * cell, int64_t first, NumbersRead<block_q4_0> & numbers) {
    const block_q4_0 & block = cell[first / QK4_0];
    const Floats scale = broadcast(to_float(block.d));
    constexpr int64_t HALF = QK4_0 / 2 / LANES;
#pragma GCC unroll 4
    for (int64_t i = 0; i < HALF; i++) {
        const Words pairs = load_bytes(block.qs + i * LANES);
        numbers[i] = multiply(to_floats(SignedWords(pairs & 15) - 8), scale);
        numbers[HALF + i] = multiply(to_floats(SignedWords(pairs >> 4) - 8), scale);
    }
}

// The largest of some numbers of cells, without signs.
template <typename Number>
struct Magnitude {
    Halves largest{};

    // Takes the numbers that read_numbers() reads.
    KERNEL void take(const ggml_fp16_t * cell, int64_t first) { largest = larger_magnitudes(largest, cell + first); }
    KERNEL float bound() const { return horizontal_max(to_floats(largest)); }
};

// Of quants by their scales, compared as integers; those of Q8_0 are at most 127, those of Q4_0 at least -8.
template <typename Block>
struct MagnitudeOfBlocks {
    uint16_t largest = 0;

    void take(const Block * cell, int64_t first) {
        largest = std::max<uint16_t>(largest, cell[first / BLOCK_SIZE].d & 0x7fff);
    }
    KERNEL float bound() const { return to_float(largest) * (IS_Q8_0<Block> ? 127 : 8); }
};
template <>
struct Magnitude<block_q8_0> : MagnitudeOfBlocks<block_q8_0> {};
template <>
struct Magnitude<block_q4_0> : MagnitudeOfBlocks<block_q4_0> {};

// The keys, or the values, of one KV head.
struct HeadCells {
    const char * data;
    int64_t cell_size, head_stride;  // bytes from cell to cell, and from KV head to KV head
    int64_t head_size, head_dim;     // bytes of a head, its numbers
    ggml_type type;

    HeadCells(const ggml_tensor * tensor, int64_t kv_head)
        : data(static_cast<const char *>(tensor->data) + kv_head * tensor->nb[2]),
          cell_size(tensor->nb[1]), head_stride(tensor->nb[2]),
          head_size(ggml_row_size(tensor->type, tensor->ne[0])), head_dim(tensor->ne[0]), type(tensor->type) {}

    // Goes on to the next KV head. Another HeadCells would divide again for its size.
    void next_head() { data += head_stride; }

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
            using Number = NumberOf<decltype(cells)>;
            for (int64_t i = 0; i < KV_TILE; i++) {
                for (int64_t d = 0; d < head_dim; d += READ_TOGETHER<Number>) {
                    NumbersRead<Number> read;
                    read_numbers(cells[i], d, read);
                    for (int64_t j = 0; j < READ_TOGETHER<Number> / LANES; j++) {
                        store(numbers + i * head_dim + d + j * LANES, read[j]);
                    }
                }
            }
            return 0;
        });
    }

    // A bound of all numbers of the cells of a tile, without signs, by these numbers alone.
    KERNEL float magnitude(const CellTile & tile) const {
        return with_numbers(tile, [&](const auto * const * cells) KERNEL {
            using Number = NumberOf<decltype(cells)>;
            Magnitude<Number> magnitude;
            for (int64_t d = 0; d < head_dim; d += READ_TOGETHER<Number>) {
                for (int64_t i = 0; i < KV_TILE; i++) {
                    magnitude.take(cells[i], d);
                }
            }
            return magnitude.bound();
        });
    }

    // Inlined, since GCC drops calls of a function that only prefetches, as one without effects.
    __attribute__((always_inline)) void prefetch(const CellTile & tile) const {
        for (int64_t i = 0; i < KV_TILE; i++) {
            prefetch(tile.cells[i]);
        }
    }

    // Into the L2 cache: with Zen 4, prompts over 8,192 cells take a seventh less time than with the L1 cache.
    __attribute__((always_inline)) void prefetch(int32_t cell) const {
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
