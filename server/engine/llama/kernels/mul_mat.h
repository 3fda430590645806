/* Matrix multiplication for llama.cpp, with weights in blocks of 32, in super-blocks of 256 and as plain numbers;
 * mul_mat_id.h chooses a matrix for each row of activations.
 *
 * llama.cpp multiplies one row of weights with the activations of one token at a time, and unpacks the
 * row again for every token. This kernel unpacks a block of as many rows as a register has lanes, one
 * row in each lane, and multiplies it with the activations of all tokens. As in llama.cpp, activations
 * are quantized to 8 bits, with a scale for each block; for plain numbers they stay as they are. A token's
 * result does not depend on the number of tokens.
 *
 * tests/unit/engine/test_matrix_kernels.py compares the results with exact products; docs/benchmarks.md has the
 * gain.
 */
#pragma once

#include <algorithm>
#include <cstring>

#include "ggml-backend-impl.h"
#include "ggml-cpu-impl.h"
#include "kernels.h"
#include "mul_mat_blocks.h"
#include "mul_mat_super_blocks.h"

namespace {

// What a block of weights is multiplied with, and how many numbers it has.
template <typename Block, typename = void>
struct ActivationsFor {
    using Type = ActivationBlockOf<Block>;
    static constexpr int64_t NUMBERS = BLOCK_SIZE;
};

template <typename Block>
struct ActivationsFor<Block, std::enable_if_t<IS_SUPER_BLOCK<Block>>> {
    using Type = SuperActivations<Block>;
    static constexpr int64_t NUMBERS = SUPER_BLOCK_SIZE;
};

template <typename Block>
struct ActivationsFor<Block, std::enable_if_t<IS_PLAIN<Block>>> {
    using Type = PlainActivations;
    static constexpr int64_t NUMBERS = PLAIN_NUMBERS;
};

template <typename Block>
using Activations = typename ActivationsFor<Block>::Type;

// So many panels are multiplied together.
template <typename Block>
constexpr int TOGETHER_OF = IS_SUPER_BLOCK<Block> ? PANELS_TOGETHER
                            : IS_PLAIN<Block>     ? PLAIN_PANELS
                            : IS_NARROW<Block>    ? 1
                                                  : BLOCK_PANELS_TOGETHER;

// With fewer tokens, a panel of blocks of 32 is multiplied alone: what is unpacked of it stays in registers.
template <typename Block>
constexpr int64_t LEAST_TOKENS_TOGETHER = IS_SUPER_BLOCK<Block> || IS_PLAIN<Block> ? 1 : 8;

// Whether so few tokens are multiplied in 8 bits, for which less has to be unpacked.
template <typename Block>
constexpr bool HAS_NARROW_FORM = IS_WIDE<Block> && !IS_SUPER_BLOCK<Block>;

template <typename Block>
constexpr int64_t NUMBERS = ActivationsFor<Block>::NUMBERS;

// Bytes that each thread needs for a column of a panel, to store many plain numbers column by column.
template <typename Block>
constexpr size_t COLUMN_SIZE = IS_PLAIN<Block> && !HAS_TILES ? PANEL_ROWS * sizeof(float) : 0;

// At most so many tokens are multiplied row by row.
template <typename Block>
constexpr int64_t MOST_TOKENS_BY_ROWS = IS_SUPER_BLOCK<Block> ? MOST_SUPER_TOKENS_BY_ROWS<Block>
                                        : IS_PLAIN<Block>     ? PLAIN_TOKENS_BY_ROWS
                                                              : BLOCK_TOKENS_BY_ROWS;

template <typename Block>
constexpr int64_t TOKENS_OF_TILE = IS_PLAIN<Block> ? PLAIN_TILE_TOKENS : TILE_TOKENS;

// Tokens of a tile for weights of some blocks. Plain numbers take more memory, of which a tile may have so many bytes,
// and each tile reads all weights again.
template <typename Block>
inline int64_t tokens_of_tile(int64_t blocks) {
    constexpr int64_t LEAST_TOKENS = 64 / GROUP_TOKENS * GROUP_TOKENS, MOST_BYTES = (HAS_TILES ? 512 : 1024) * 1024;
    if (!IS_PLAIN<Block>) {
        return TOKENS_OF_TILE<Block>;
    }
    const int64_t tokens = MOST_BYTES / (blocks * int64_t(sizeof(Activations<Block>)));
    return std::clamp(tokens / GROUP_TOKENS * GROUP_TOKENS, LEAST_TOKENS, TOKENS_OF_TILE<Block>);
}

// Row `row` of all rows of a tensor.
inline char * row_of(const ggml_tensor * tensor, int64_t row) {
    const int64_t matrix = row / tensor->ne[1];
    return static_cast<char *>(tensor->data) + row % tensor->ne[1] * tensor->nb[1] +
           matrix % tensor->ne[2] * tensor->nb[2] + matrix / tensor->ne[2] * tensor->nb[3];
}

// Where activations begin in the memory behind `end`.
template <typename Block>
inline Activations<Block> * first_activations(void * end) {
    constexpr uintptr_t ALIGNMENT = alignof(Activations<Block>);
    const uintptr_t address = reinterpret_cast<uintptr_t>(end) + ALIGNMENT - 1;
    return reinterpret_cast<Activations<Block> *>(address - address % ALIGNMENT);
}

// The memory of a thread for the columns of a panel; that of all threads begins at `end`.
template <typename Block>
inline float * columns_of_thread(void * end, int64_t blocks, int thread) {
    const size_t size = blocks * NUMBERS<Block> * COLUMN_SIZE<Block>;
    return reinterpret_cast<float *>(static_cast<char *>(end) + thread * size);
}

// So many rows are quantized together where there are enough.
template <typename Block>
constexpr int64_t QUANTIZED_TOGETHER = IS_PLAIN<Block> ? PLACED_TOGETHER : 1;

// Quantizes `count` rows, from row `first` of all `rows` on, into their places; numbers[i] are those of row first + i.
// Activations are stored tile by tile, within a tile block by block, within a block row by row; those for plain numbers
// as place_plain() puts them.
template <typename Block>
KERNEL void quantize_rows(const float * const * numbers, int64_t first, int64_t count, int64_t rows,
                          int64_t blocks, Activations<Block> * activations) {
    if constexpr (IS_PLAIN<Block>) {
        place_plain<Block>(numbers, first, count, rows, blocks, activations);
    } else {
        for (int64_t i = 0; i < count; i++) {
            const int64_t row = first + i, tile = row - row % TOKENS_OF_TILE<Block>;
            const int64_t width = std::min(TOKENS_OF_TILE<Block>, rows - tile);
            for (int64_t block = 0; block < blocks; block++) {
                quantize(numbers[i] + block * NUMBERS<Block>,
                         activations[tile * blocks + block * width + row - tile]);
            }
        }
    }
}

// Multiplies the panels from `panel` on with a tile of activations; results[i] is the result of row i of these. `columns` is
// memory for a panel if its columns are to be stored.
template <typename Block, int PANELS>
KERNEL void multiply(const Matrix & matrix, int64_t panel, const Activations<Block> * activations,
                     int64_t rows, float * const * results, float * columns) {
    const int64_t first_row = matrix.first_row(panel);
    // Another thread may compute the rows that the last panel has twice.
    const int64_t known = panel * PANEL_ROWS - first_row;
    Floats sums[PANELS][TOKENS_OF_TILE<Block>];
    for (int p = 0; p < PANELS; p++) {
        std::fill_n(sums[p], rows, broadcast(0.f));
    }
    const char * first = matrix.data + first_row * matrix.stride;
    if constexpr (COLUMN_SIZE<Block> > 0) {
        multiply_panels<Block, PANELS>(first, matrix.stride, matrix.blocks, activations, rows, columns, sums);
    } else {
        multiply_panels<Block, PANELS>(first, matrix.stride, matrix.blocks, activations, rows, sums);
    }
    for (int64_t row = 0; row < rows; row++) {
        float * result = results[row] + first_row;
        for (int p = 0; p < PANELS && known == 0; p++) {
            store_unaligned(result + p * PANEL_ROWS, sums[p][row]);
        }
        for (int64_t lane = known; known > 0 && lane < PANEL_ROWS; lane++) {
            result[lane] = sums[0][row][lane];
        }
    }
}

// As above, for the panels from `panel` up to `end` and all rows of activations, tile by tile: those of a tile stay in
// the L2 cache.
template <typename Block>
KERNEL void multiply(const Matrix & matrix, int64_t panel, int64_t end,
                     const Activations<Block> * activations, int64_t rows, float * const * results,
                     float * columns) {
    if constexpr (MOST_TOKENS_BY_ROWS<Block> > 0) {
        constexpr bool IS_OF_32 = !IS_SUPER_BLOCK<Block> && !IS_PLAIN<Block>;
        if (rows <= MOST_TOKENS_BY_ROWS<Block> && !(IS_OF_32 && fit_into_l1(1, matrix.stride))) {
            const int64_t end_row = std::min(end * PANEL_ROWS, matrix.rows);
            multiply_by_rows<Block>(matrix, panel * PANEL_ROWS, end_row, activations, rows, results);
            return;
        }
    }
    constexpr int TOGETHER = TOGETHER_OF<Block>;
    const int64_t whole = std::min(end, matrix.rows / PANEL_ROWS);
    if constexpr (COLUMN_SIZE<Block> > 0) {
        columns = are_many(rows) ? columns : nullptr;
    }
    const int64_t tile_tokens = tokens_of_tile<Block>(matrix.blocks);
    for (int64_t tile = 0; tile < rows; tile += tile_tokens) {
        const Activations<Block> * of_tile = activations + tile * matrix.blocks;
        const int64_t width = std::min(tile_tokens, rows - tile);
        int64_t next = panel;
        for (; width >= LEAST_TOKENS_TOGETHER<Block> && next + TOGETHER <= whole; next += TOGETHER) {
            multiply<Block, TOGETHER>(matrix, next, of_tile, width, results + tile, columns);
        }
        for (; next < end; next++) {
            multiply<Block, 1>(matrix, next, of_tile, width, results + tile, columns);
        }
    }
}

// Panels of one job: four jobs for each thread, so that the others can take over from one that is held up.
inline int64_t panels_of_a_job(int64_t panels, int threads) {
    const int64_t together = PANELS_TOGETHER;
    return std::max(together, panels / (4 * threads) / together * together);
}

// One thread's part of the operation.
template <typename Block>
KERNEL void mul_mat(const ggml_compute_params * params, ggml_tensor * result) {
    const ggml_tensor *weights = result->src[0], *input = result->src[1];
    if constexpr (HAS_NARROW_FORM<Block>) {
        if (ggml_nrows(input) < LEAST_TOKENS_TOGETHER<Block>) {
            return mul_mat<Narrow<Block>>(params, result);
        }
    }
    const Matrix matrix{static_cast<const char *>(weights->data), int64_t(weights->nb[1]),
                        weights->ne[1], weights->ne[0] / NUMBERS<Block>};
    const int64_t panels = matrix.panels();
    const int64_t tokens = ggml_nrows(input);
    auto ** results = static_cast<float **>(params->wdata);
    Activations<Block> * activations = first_activations<Block>(results + tokens);

    constexpr int64_t TOGETHER = QUANTIZED_TOGETHER<Block>;
    const int64_t share = tokens < TOGETHER ? 1 : TOGETHER;  // of a thread
    for (int64_t first = params->ith * share; first < tokens; first += params->nth * share) {
        const int64_t count = std::min(share, tokens - first);
        const float * numbers[TOGETHER];
        for (int64_t i = 0; i < count; i++) {
            numbers[i] = reinterpret_cast<const float *>(row_of(input, first + i));
            results[first + i] = reinterpret_cast<float *>(row_of(result, first + i));
        }
        quantize_rows<Block>(numbers, first, count, tokens, matrix.blocks, activations);
    }
    if (params->ith == 0) {
        ggml_threadpool_chunk_set(params->threadpool, params->nth);
    }
    ggml_barrier(params->threadpool);

    float * columns = columns_of_thread<Block>(activations + tokens * matrix.blocks, matrix.blocks, params->ith);
    const int64_t job_panels = panels_of_a_job(panels, params->nth);
    const int64_t jobs = (panels + job_panels - 1) / job_panels;
    for (int64_t job = params->ith; job < jobs;
         job = ggml_threadpool_chunk_add(params->threadpool, 1)) {
        const int64_t end = std::min(panels, (job + 1) * job_panels);
        multiply<Block>(matrix, job * job_panels, end, activations, tokens, results, columns);
    }
}

}  // namespace
