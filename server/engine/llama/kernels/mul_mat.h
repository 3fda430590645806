/* Matrix multiplication for llama.cpp, with weights in blocks of 32: Q4_0, Q4_1, Q5_0, Q5_1 and Q8_0.
 *
 * llama.cpp multiplies one row of weights with the activations of one token at a time, and unpacks the
 * row again for every token. This kernel unpacks a block of as many rows as a register has lanes, one
 * row in each lane, and multiplies it with the activations of all tokens. As in llama.cpp, activations
 * are quantized to 8 bits. A token's result does not depend on the number of tokens.
 *
 * tests/unit/engine/test_kernels.py compares the results with exact products; docs/benchmarks.md has the
 * gain.
 */
#pragma once

#include <algorithm>
#include <cstring>

#include "blocks.h"
#include "ggml-backend-impl.h"
#include "ggml-cpu-impl.h"
#include "kernels.h"

namespace {

constexpr int64_t PANEL_ROWS = LANES;  // rows of weights that are multiplied together
// Tokens that are multiplied with a panel together. Their accumulators, one register each, are 4 KB with
// AVX-512 and stay in the L1 cache.
constexpr int64_t TILE_TOKENS = 64;

// A block of the activations of a token: activation = scale * quant.
struct ActivationBlock {
    int32_t quants[BLOCK_SIZE / 4];  // four bytes in each
    float scale;
    float scaled_sum;  // scale * (sum of the quants)
};

// Multiplies a panel with a tile of tokens; lane r of accumulators[t] becomes the result of row r for
// token t. `activations` holds the tile block by block, and within a block token by token.
//
// For each block, with weight = scale * quant + offset:
// sum(weight * activation) = scale * activation scale * dot product of quants + offset * scaled sum.
template <typename Block>
KERNEL void multiply_panel(const char * panel, int64_t stride, int64_t blocks,
                           const ActivationBlock * activations, int64_t tokens,
                           Floats accumulators[TILE_TOKENS]) {
    for (int64_t token = 0; token < tokens; token++) {
        accumulators[token] = broadcast(0);
    }
    for (int64_t block = 0; block < blocks; block++) {
        // The next panel follows in memory. The processor cannot prefetch it by itself, since it does not
        // track as many streams as a panel has rows.
        const char * next = panel + PANEL_ROWS * (stride + block * int64_t(sizeof(Block)));
        for (size_t offset = 0; offset < PANEL_ROWS * sizeof(Block); offset += 64) {
            _mm_prefetch(next + offset, _MM_HINT_T0);
        }
        WeightBlocks weights;
        if constexpr (IS_Q8_0<Block>) {
            unpack_q8_0(panel + block * sizeof(Block), stride, weights);
        } else {
            unpack_nibbles<Block>(panel + block * sizeof(Block), stride, weights);
        }
        for (int64_t token = 0; token < tokens; token++, activations++) {
            const Floats products = dot_products<Block>(weights, activations->quants);
            const Floats scale = multiply(weights.scale, broadcast(activations->scale));
            const Floats sum = multiply_add(scale, products, accumulators[token]);
            accumulators[token] =
                multiply_add(weights.offset, broadcast(activations->scaled_sum), sum);
        }
    }
}

KERNEL void quantize(const float * numbers, ActivationBlock & block) {
    const float largest = absmax(numbers);
    const int32_t sum = quantize_to_int8(numbers, largest > 0 ? 127 / largest : 0, block.quants);
    block.scale = largest / 127;
    block.scaled_sum = block.scale * sum;
}

// One thread's part of the operation.
template <typename Block>
KERNEL void mul_mat(const ggml_compute_params * params, ggml_tensor * result) {
    const ggml_tensor *weights = result->src[0], *input = result->src[1];
    const int64_t tokens = input->ne[1], blocks = weights->ne[0] / BLOCK_SIZE;
    const int64_t panels = weights->ne[1] / PANEL_ROWS, stride = weights->nb[1];
    auto * activations = static_cast<ActivationBlock *>(params->wdata);

    // Activations are stored tile by tile, within a tile block by block.
    for (int64_t token = params->ith; token < tokens; token += params->nth) {
        const auto * numbers = reinterpret_cast<const float *>(
            static_cast<const char *>(input->data) + token * input->nb[1]);
        const int64_t tile = token - token % TILE_TOKENS;
        const int64_t width = std::min(TILE_TOKENS, tokens - tile);
        for (int64_t block = 0; block < blocks; block++) {
            quantize(numbers + block * BLOCK_SIZE,
                     activations[tile * blocks + block * width + token - tile]);
        }
    }
    if (params->ith == 0) {
        ggml_threadpool_chunk_set(params->threadpool, params->nth);
    }
    ggml_barrier(params->threadpool);

    // Four jobs for each thread, so that the others can take over from one that is held up.
    const int64_t job_panels = std::max<int64_t>(1, panels / (4 * params->nth));
    const int64_t jobs = (panels + job_panels - 1) / job_panels;
    for (int64_t job = params->ith; job < jobs;
         job = ggml_threadpool_chunk_add(params->threadpool, 1)) {
        const int64_t end = std::min(panels, (job + 1) * job_panels);
        for (int64_t panel = job * job_panels; panel < end; panel++) {
            const char * rows =
                static_cast<const char *>(weights->data) + panel * PANEL_ROWS * stride;
            for (int64_t tile = 0; tile < tokens; tile += TILE_TOKENS) {
                const int64_t width = std::min(TILE_TOKENS, tokens - tile);
                Floats sums[TILE_TOKENS];
                multiply_panel<Block>(rows, stride, blocks, activations + tile * blocks, width, sums);
                for (int64_t token = 0; token < width; token++) {
                    char * column =
                        static_cast<char *>(result->data) + (tile + token) * result->nb[1];
                    store_unaligned(reinterpret_cast<float *>(column) + panel * PANEL_ROWS,
                                    sums[token]);
                }
            }
        }
    }
}

using Kernel = void(const ggml_compute_params *, ggml_tensor *);

Kernel * kernel_for(ggml_type type) {
    switch (type) {
        case GGML_TYPE_Q4_0:
            return mul_mat<block_q4_0>;
        case GGML_TYPE_Q4_1:
            return mul_mat<block_q4_1>;
        case GGML_TYPE_Q5_0:
            return mul_mat<block_q5_0>;
        case GGML_TYPE_Q5_1:
            return mul_mat<block_q5_1>;
        case GGML_TYPE_Q8_0:
            return mul_mat<block_q8_0>;
        default:
            return nullptr;
    }
}

class MulMatTraits : public ggml::cpu::tensor_traits {
    bool work_size(int, const ggml_tensor * op, size_t & size) override {
        size = ggml_nelements(op->src[1]) / BLOCK_SIZE * sizeof(ActivationBlock);
        return true;
    }

    // Every thread of llama.cpp's pool calls this and computes its part.
    bool compute_forward(ggml_compute_params * params, ggml_tensor * op) override {
        kernel_for(op->src[0]->type)(params, op);
        return true;
    }
};

ggml::cpu::tensor_traits * mul_mat_traits(const ggml_tensor * op) {
    static MulMatTraits traits;
    if (op->op != GGML_OP_MUL_MAT || kernel_for(op->src[0]->type) == nullptr) {
        return nullptr;
    }
    const ggml_tensor *weights = op->src[0], *input = op->src[1];
    const bool weights_supported =
        weights->buffer != nullptr && ggml_backend_buft_is_host(weights->buffer->buft) &&
        ggml_is_contiguous(weights) && ggml_is_matrix(weights) && weights->ne[1] % PANEL_ROWS == 0;
    const bool input_supported = input->type == GGML_TYPE_F32 && input->nb[0] == sizeof(float) &&
                                 ggml_is_matrix(input) && op->nb[0] == sizeof(float);
    return weights_supported && input_supported ? &traits : nullptr;
}

}  // namespace
