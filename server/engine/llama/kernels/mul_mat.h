/* Matrix multiplication for llama.cpp, with weights in blocks of 32 and in super-blocks of 256; mul_mat_id.h
 * chooses a matrix for each row of activations.
 *
 * llama.cpp multiplies one row of weights with the activations of one token at a time, and unpacks the
 * row again for every token. This kernel unpacks a block of as many rows as a register has lanes, one
 * row in each lane, and multiplies it with the activations of all tokens. As in llama.cpp, activations
 * are quantized to 8 bits, with a scale for each block. A token's result does not depend on the number of
 * tokens.
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

// What a block of weights is multiplied with.
template <typename Block>
using Activations =
    std::conditional_t<IS_SUPER_BLOCK<Block>, SuperActivations<Block>, ActivationBlock>;

template <typename Block>
constexpr int64_t NUMBERS = IS_SUPER_BLOCK<Block> ? SUPER_BLOCK_SIZE : BLOCK_SIZE;

// A matrix of weights, `blocks` in each row; rows lie `stride` bytes apart.
struct Matrix {
    const char * data;
    int64_t stride, panels, blocks;
};

// Quantizes row `row` of `rows` into its place: activations are stored tile by tile, within a tile block by
// block, within a block row by row.
template <typename Block>
KERNEL void quantize_row(const char * numbers, int64_t row, int64_t rows, int64_t blocks,
                         Activations<Block> * activations) {
    const int64_t tile = row - row % TILE_TOKENS, width = std::min(TILE_TOKENS, rows - tile);
    for (int64_t block = 0; block < blocks; block++) {
        quantize(reinterpret_cast<const float *>(numbers) + block * NUMBERS<Block>,
                 activations[tile * blocks + block * width + row - tile]);
    }
}

// Multiplies the panels from `panel` on with all rows of activations; results[i] is the result of row i.
template <typename Block, int PANELS>
KERNEL void multiply(const Matrix & matrix, int64_t panel, const Activations<Block> * activations,
                     int64_t rows, float * const * results) {
    const char * weights = matrix.data + panel * PANEL_ROWS * matrix.stride;
    for (int64_t tile = 0; tile < rows; tile += TILE_TOKENS) {
        const int64_t width = std::min(TILE_TOKENS, rows - tile);
        Floats sums[PANELS][TILE_TOKENS];
        for (int p = 0; p < PANELS; p++) {
            std::fill_n(sums[p], width, broadcast(0.f));
        }
        multiply_panels<Block, PANELS>(weights, matrix.stride, matrix.blocks,
                                       activations + tile * matrix.blocks, width, sums);
        for (int64_t row = 0; row < width; row++) {
            for (int p = 0; p < PANELS; p++) {
                store_unaligned(results[tile + row] + (panel + p) * PANEL_ROWS, sums[p][row]);
            }
        }
    }
}

// As above, for the panels from `panel` up to `end`.
template <typename Block>
KERNEL void multiply(const Matrix & matrix, int64_t panel, int64_t end,
                     const Activations<Block> * activations, int64_t rows, float * const * results) {
    constexpr int TOGETHER = IS_SUPER_BLOCK<Block> ? PANELS_TOGETHER : 1;
    for (; panel + TOGETHER <= end; panel += TOGETHER) {
        multiply<Block, TOGETHER>(matrix, panel, activations, rows, results);
    }
    for (; panel < end; panel++) {
        multiply<Block, 1>(matrix, panel, activations, rows, results);
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
    const Matrix matrix{static_cast<const char *>(weights->data), int64_t(weights->nb[1]),
                        weights->ne[1] / PANEL_ROWS, weights->ne[0] / NUMBERS<Block>};
    const int64_t tokens = input->ne[1];
    auto ** results = static_cast<float **>(params->wdata);
    auto * activations = reinterpret_cast<Activations<Block> *>(results + tokens);

    for (int64_t token = params->ith; token < tokens; token += params->nth) {
        quantize_row<Block>(static_cast<const char *>(input->data) + token * input->nb[1], token,
                            tokens, matrix.blocks, activations);
        char * column = static_cast<char *>(result->data) + token * result->nb[1];
        results[token] = reinterpret_cast<float *>(column);
    }
    if (params->ith == 0) {
        ggml_threadpool_chunk_set(params->threadpool, params->nth);
    }
    ggml_barrier(params->threadpool);

    const int64_t job_panels = panels_of_a_job(matrix.panels, params->nth);
    const int64_t jobs = (matrix.panels + job_panels - 1) / job_panels;
    for (int64_t job = params->ith; job < jobs;
         job = ggml_threadpool_chunk_add(params->threadpool, 1)) {
        const int64_t end = std::min(matrix.panels, (job + 1) * job_panels);
        multiply<Block>(matrix, job * job_panels, end, activations, tokens, results);
    }
}

}  // namespace
