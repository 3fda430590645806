// Which matrix products of llama.cpp the kernels take over.
#pragma once

#include <vector>

#include "mul_mat_id.h"
#include "self_test.h"

namespace {

// The kernel for a format of weights.
struct Kernel {
    void (*mul_mat)(const ggml_compute_params *, ggml_tensor *);
    void (*mul_mat_id)(const ggml_compute_params *, ggml_tensor *);
    size_t activations_size;  // of the activations for one block, in bytes
    int64_t block_size;
    size_t column_size;  // of the memory of a thread for a column of a panel, in bytes
};

template <typename Block>
constexpr Kernel KERNEL_FOR{mul_mat<Block>, mul_mat_id<Block>,
                            sizeof(Activations<Block>), NUMBERS<Block>, COLUMN_SIZE<Block>};

// Whether the kernel gives right products on this processor, by a few blocks of each row; rows lie `stride` bytes apart.
template <typename Block>
bool passes_self_test(ggml_type type, int64_t tokens, int64_t blocks = 1, int64_t stride = sizeof(Block)) {
    const int64_t columns = blocks * NUMBERS<Block>, rows = (PANELS_TOGETHER + 1) * PANEL_ROWS + 3;
    Numbers numbers;
    std::vector<float> weights(rows * columns), inputs(tokens * columns), sums(tokens * rows);
    for (float & weight : weights) {
        weight = numbers.next();
    }
    // Whole numbers up to 127, which quantization does not change.
    for (int64_t i = 0; i < tokens * columns; i++) {
        inputs[i] = i % NUMBERS<Block> == 0 ? 127 : std::round(127 * numbers.next());
    }
    std::vector<char> quantized(rows * stride);
    for (int64_t row = 0; row < rows; row++) {
        float * numbers_of_row = &weights[row * columns];
        ggml_quantize_chunk(type, numbers_of_row, &quantized[row * stride], 0, 1, columns, nullptr);
        if (type != GGML_TYPE_F32) {
            ggml_get_type_traits(type)->to_float(&quantized[row * stride], numbers_of_row, columns);
        }
    }
    // Those of all tokens, and then memory for the columns of a panel.
    constexpr size_t SIZE = sizeof(Activations<Block>);
    std::vector<Activations<Block>> activations(tokens * blocks +
                                                (columns * COLUMN_SIZE<Block> + SIZE - 1) / SIZE);
    std::vector<const float *> tokens_inputs(tokens);
    std::vector<float *> results(tokens);
    for (int64_t token = 0; token < tokens; token++) {
        tokens_inputs[token] = &inputs[token * columns];
        results[token] = &sums[token * rows];
    }
    for (int64_t first = 0; first < tokens; first += QUANTIZED_TOGETHER<Block>) {
        const int64_t count = std::min(QUANTIZED_TOGETHER<Block>, tokens - first);
        quantize_rows<Block>(&tokens_inputs[first], first, count, tokens, blocks, activations.data());
    }
    const Matrix matrix{quantized.data(), stride, rows, blocks};
    multiply<Block>(matrix, 0, matrix.panels(), activations.data(), tokens, results.data(),
                    columns_of_thread<Block>(activations.data() + tokens * blocks, blocks, 0));
    return products_are_right(weights.data(), rows, inputs.data(), tokens, columns, sums.data());
}

template <typename Block>
bool passes_narrow_self_test(ggml_type type) {
    if constexpr (HAS_NARROW_FORM<Block>) {
        return passes_self_test<Narrow<Block>>(type, LEAST_TOKENS_TOGETHER<Block> - 1);
    }
    return true;
}

// The kernel, or null if it does not pass its test, which it takes once.
template <typename Block>
const Kernel * tested(ggml_type type) {
    static const bool passed = [type] {
        // Row by row, blocks are multiplied four at a time and alone, and panels of so long rows do not fit into L1.
        constexpr int64_t TOKENS_BY_ROWS = MOST_TOKENS_BY_ROWS<Block>, BLOCKS = 5, STRIDE = 2048;
        const bool right =
            passes_self_test<Block>(type, TOKENS_TOGETHER + 1) &&
            (TOKENS_BY_ROWS == 0 || passes_self_test<Block>(type, TOKENS_BY_ROWS, BLOCKS, STRIDE)) &&
            passes_self_test<Block>(type, MANY_TOKENS + 1) && passes_narrow_self_test<Block>(type);
        if (!right) {
            GGML_LOG_WARN("dragoman: the %s kernel for %s gives wrong results on this processor; "
                          "llama.cpp's own code replaces it\n",
                          INSTRUCTION_SET, ggml_type_name(type));
        }
        return right;
    }();
    return passed ? &KERNEL_FOR<Block> : nullptr;
}

const Kernel * kernel_for(ggml_type type) {
    switch (type) {
        case GGML_TYPE_F32:
            return tested<SingleBlock>(type);
        case GGML_TYPE_F16:
            return tested<HalfBlock>(type);
        case GGML_TYPE_BF16:
            return tested<BrainBlock>(type);
        case GGML_TYPE_Q4_0:
            return tested<block_q4_0>(type);
        case GGML_TYPE_Q4_1:
            return tested<block_q4_1>(type);
        case GGML_TYPE_Q5_0:
            return tested<block_q5_0>(type);
        case GGML_TYPE_Q5_1:
            return tested<block_q5_1>(type);
        case GGML_TYPE_Q8_0:
            return tested<block_q8_0>(type);
        case GGML_TYPE_IQ4_NL:
            return tested<block_iq4_nl>(type);
        case GGML_TYPE_MXFP4:
            return tested<block_mxfp4>(type);
        case GGML_TYPE_Q2_K:
            return tested<block_q2_K>(type);
        case GGML_TYPE_Q3_K:
            return tested<block_q3_K>(type);
        case GGML_TYPE_Q4_K:
            return tested<block_q4_K>(type);
        case GGML_TYPE_Q5_K:
            return tested<block_q5_K>(type);
        case GGML_TYPE_Q6_K:
            return tested<block_q6_K>(type);
        case GGML_TYPE_IQ4_XS:
            return tested<block_iq4_xs>(type);
        default:
            return nullptr;
    }
}

class MulMatTraits : public ggml::cpu::tensor_traits {
    bool work_size(int threads, const ggml_tensor * op, size_t & size) override {
        const Kernel * kernel = kernel_for(op->src[0]->type);
        const ggml_tensor * input = op->src[1];
        const bool chooses = op->op == GGML_OP_MUL_MAT_ID;
        const int64_t rows = chooses ? Experts(op).rows : ggml_nrows(input);
        size = rows * (input->ne[0] / kernel->block_size) * kernel->activations_size +
               (chooses ? SortedRows::size(Experts(op)) : rows * sizeof(float *)) +
               threads * input->ne[0] * kernel->column_size + ACTIVATIONS_ALIGNMENT;
        return true;
    }

    // Every thread of llama.cpp's pool calls this and computes its part.
    bool compute_forward(ggml_compute_params * params, ggml_tensor * op) override {
        const Kernel * kernel = kernel_for(op->src[0]->type);
        (op->op == GGML_OP_MUL_MAT ? kernel->mul_mat : kernel->mul_mat_id)(params, op);
        return true;
    }
};

bool multiplies(const ggml_tensor * weights) {
    const Kernel * kernel = kernel_for(weights->type);
    return kernel != nullptr && weights->ne[0] % kernel->block_size == 0 &&
           weights->ne[1] >= PANEL_ROWS;
}

ggml::cpu::tensor_traits * mul_mat_traits(const ggml_tensor * op) {
    static MulMatTraits traits;
    if ((op->op != GGML_OP_MUL_MAT && op->op != GGML_OP_MUL_MAT_ID) || !multiplies(op->src[0]) ||
        is_rotation(op)) {
        return nullptr;
    }
    const ggml_tensor *weights = op->src[0], *input = op->src[1], *ids = op->src[2];
    const bool weights_supported =
        weights->buffer != nullptr && ggml_backend_buft_is_host(weights->buffer->buft) &&
        ggml_is_contiguous(weights) && weights->ne[3] == 1;
    const bool input_supported = input->type == GGML_TYPE_F32 && input->nb[0] == sizeof(float) &&
                                 op->nb[0] == sizeof(float);
    const bool matrices_supported =
        op->op == GGML_OP_MUL_MAT
            ? ggml_is_matrix(weights)
            : ids->nb[0] == sizeof(int32_t) && ggml_is_matrix(ids) && input->ne[3] == 1;
    return weights_supported && input_supported && matrices_supported ? &traits : nullptr;
}

}  // namespace
