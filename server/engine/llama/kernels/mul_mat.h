/* Matrix products for llama.cpp, of weights in blocks of 32: Q4_0, Q4_1, Q5_0, Q5_1 and Q8_0.
 *
 * llama.cpp multiplies weights of these formats row by row with the activations of each token, and
 * unpacks them again for each. Here a block of as many rows as a register has lanes is unpacked at
 * once, a row in each lane, and multiplied with those of all tokens. A token's result does not depend
 * on how many others there are.
 *
 * tests/unit/engine/test_kernels.py compares it with exact products; what it brings is measured in
 * docs/benchmarks.md.
 */
#pragma once

#include <algorithm>
#include <cstring>

#include "blocks.h"
#include "ggml-backend-impl.h"
#include "ggml-cpu-impl.h"
#include "kernels.h"

namespace {

constexpr int64_t STRIP = LANES;  // rows of weights, multiplied together
constexpr int64_t TILE = 64;      // tokens whose sums fit in the first-level cache, a register for each

// A block of the activations of a token: activation = scale * quant.
struct Activations {
    int32_t quants[BLOCK / 4];  // four bytes in each
    float scale;
    float sum;  // scale times the sum of the quants
};

// The products of the rows of a strip with `tokens` tokens, a register for each. Activations lie
// block by block, token by token.
template <typename Block>
KERNEL void multiply_strip(const char * strip, int64_t stride, int64_t blocks,
                           const Activations * activations, int64_t tokens, Floats sums[TILE]) {
    for (int64_t token = 0; token < tokens; token++) {
        sums[token] = in_all_lanes(0);
    }
    for (int64_t block = 0; block < blocks; block++) {
        // What follows in memory comes with the next strip: the rows of a strip are too many places
        // for the processor to foresee.
        const char * next = strip + STRIP * (stride + block * int64_t(sizeof(Block)));
        for (size_t offset = 0; offset < STRIP * sizeof(Block); offset += 64) {
            _mm_prefetch(next + offset, _MM_HINT_T0);
        }
        Weights weights;
        if constexpr (IS_BYTES<Block>) {
            unpack_bytes(strip + block * sizeof(Block), stride, weights);
        } else {
            unpack_bits<Block>(strip + block * sizeof(Block), stride, weights);
        }
        for (int64_t token = 0; token < tokens; token++, activations++) {
            const Floats products = multiply<Block>(weights, activations->quants);
            const Floats scale = multiply(weights.scale, in_all_lanes(activations->scale));
            const Floats sum = multiply_add(scale, products, sums[token]);
            sums[token] = multiply_add(weights.offset, in_all_lanes(activations->sum), sum);
        }
    }
}

KERNEL void quantize(const float * numbers, Activations & activations) {
    const float largest = largest_magnitude(numbers);
    const int32_t sum =
        round_to_bytes(numbers, largest > 0 ? 127 / largest : 0, activations.quants);
    activations.scale = largest / 127;
    activations.sum = activations.scale * sum;
}

// The operation, a thread's part of it.
template <typename Block>
KERNEL void mul_mat(const ggml_compute_params * params, ggml_tensor * result) {
    const ggml_tensor *weights = result->src[0], *input = result->src[1];
    const int64_t tokens = input->ne[1], blocks = weights->ne[0] / BLOCK;
    const int64_t strips = weights->ne[1] / STRIP, stride = weights->nb[1];
    auto * activations = static_cast<Activations *>(params->wdata);

    // Tile by tile, within one block by block.
    for (int64_t token = params->ith; token < tokens; token += params->nth) {
        const auto * numbers = reinterpret_cast<const float *>(
            static_cast<const char *>(input->data) + token * input->nb[1]);
        const int64_t tile = token - token % TILE, width = std::min(TILE, tokens - tile);
        for (int64_t block = 0; block < blocks; block++) {
            quantize(numbers + block * BLOCK,
                     activations[tile * blocks + block * width + token - tile]);
        }
    }
    if (params->ith == 0) {
        ggml_threadpool_chunk_set(params->threadpool, params->nth);
    }
    ggml_barrier(params->threadpool);

    // Several chunks for each thread: one that is held up leaves the rest to the others.
    const int64_t chunk_size = std::max<int64_t>(1, strips / (4 * params->nth));
    const int64_t chunks = (strips + chunk_size - 1) / chunk_size;
    for (int64_t chunk = params->ith; chunk < chunks;
         chunk = ggml_threadpool_chunk_add(params->threadpool, 1)) {
        const int64_t end = std::min(strips, (chunk + 1) * chunk_size);
        for (int64_t strip = chunk * chunk_size; strip < end; strip++) {
            const char * rows = static_cast<const char *>(weights->data) + strip * STRIP * stride;
            for (int64_t tile = 0; tile < tokens; tile += TILE) {
                const int64_t width = std::min(TILE, tokens - tile);
                Floats sums[TILE];
                multiply_strip<Block>(rows, stride, blocks, activations + tile * blocks, width, sums);
                for (int64_t token = 0; token < width; token++) {
                    char * column = static_cast<char *>(result->data) + (tile + token) * result->nb[1];
                    store_unaligned(reinterpret_cast<float *>(column) + strip * STRIP, sums[token]);
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

class MulMat : public ggml::cpu::tensor_traits {
    bool work_size(int, const ggml_tensor * op, size_t & size) override {
        size = ggml_nelements(op->src[1]) / BLOCK * sizeof(Activations);
        return true;
    }

    // Each of llama.cpp's threads calls it and computes a part.
    bool compute_forward(ggml_compute_params * params, ggml_tensor * op) override {
        kernel_for(op->src[0]->type)(params, op);
        return true;
    }
};

ggml::cpu::tensor_traits * mul_mat_traits(const ggml_tensor * op) {
    static MulMat mul_mat;
    if (op->op != GGML_OP_MUL_MAT || kernel_for(op->src[0]->type) == nullptr) {
        return nullptr;
    }
    const ggml_tensor *weights = op->src[0], *input = op->src[1];
    const bool in_reach = weights->buffer != nullptr &&
                          ggml_backend_buft_is_host(weights->buffer->buft) &&
                          ggml_is_contiguous(weights) && ggml_is_matrix(weights) &&
                          weights->ne[1] % STRIP == 0;
    const bool plain = input->type == GGML_TYPE_F32 && input->nb[0] == sizeof(float) &&
                       ggml_is_matrix(input) && op->nb[0] == sizeof(float);
    return in_reach && plain ? &mul_mat : nullptr;
}

}  // namespace
