// Which matrix products of llama.cpp the kernels take over.
#pragma once

#include "mul_mat_id.h"

namespace {

// The kernel for a format of weights.
struct Kernel {
    void (*mul_mat)(const ggml_compute_params *, ggml_tensor *);
    void (*mul_mat_id)(const ggml_compute_params *, ggml_tensor *);
    size_t activations_size;  // of the activations for one block, in bytes
    int64_t block_size;
};

template <typename Block>
constexpr Kernel KERNEL_FOR{mul_mat<Block>, mul_mat_id<Block>,
                            sizeof(Activations<Block>), NUMBERS<Block>};

const Kernel * kernel_for(ggml_type type) {
    switch (type) {
        case GGML_TYPE_Q4_0:
            return &KERNEL_FOR<block_q4_0>;
        case GGML_TYPE_Q4_1:
            return &KERNEL_FOR<block_q4_1>;
        case GGML_TYPE_Q5_0:
            return &KERNEL_FOR<block_q5_0>;
        case GGML_TYPE_Q5_1:
            return &KERNEL_FOR<block_q5_1>;
        case GGML_TYPE_Q8_0:
            return &KERNEL_FOR<block_q8_0>;
        case GGML_TYPE_IQ4_NL:
            return &KERNEL_FOR<block_iq4_nl>;
        case GGML_TYPE_MXFP4:
            return &KERNEL_FOR<block_mxfp4>;
        case GGML_TYPE_Q2_K:
            return &KERNEL_FOR<block_q2_K>;
        case GGML_TYPE_Q3_K:
            return &KERNEL_FOR<block_q3_K>;
        case GGML_TYPE_Q4_K:
            return &KERNEL_FOR<block_q4_K>;
        case GGML_TYPE_Q5_K:
            return &KERNEL_FOR<block_q5_K>;
        case GGML_TYPE_Q6_K:
            return &KERNEL_FOR<block_q6_K>;
        case GGML_TYPE_IQ4_XS:
            return &KERNEL_FOR<block_iq4_xs>;
        default:
            return nullptr;
    }
}

class MulMatTraits : public ggml::cpu::tensor_traits {
    bool work_size(int, const ggml_tensor * op, size_t & size) override {
        const Kernel * kernel = kernel_for(op->src[0]->type);
        const ggml_tensor * input = op->src[1];
        const bool chooses = op->op == GGML_OP_MUL_MAT_ID;
        const int64_t rows = chooses ? Experts(op).rows : input->ne[1];
        size = rows * (input->ne[0] / kernel->block_size) * kernel->activations_size +
               (chooses ? SortedRows::size(Experts(op)) : rows * sizeof(float *));
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
    return kernel_for(weights->type) != nullptr && weights->ne[1] % PANEL_ROWS == 0;
}

ggml::cpu::tensor_traits * mul_mat_traits(const ggml_tensor * op) {
    static MulMatTraits traits;
    if ((op->op != GGML_OP_MUL_MAT && op->op != GGML_OP_MUL_MAT_ID) || !multiplies(op->src[0])) {
        return nullptr;
    }
    const ggml_tensor *weights = op->src[0], *input = op->src[1], *ids = op->src[2];
    const bool weights_supported =
        weights->buffer != nullptr && ggml_backend_buft_is_host(weights->buffer->buft) &&
        ggml_is_contiguous(weights) && weights->ne[3] == 1;
    const bool input_supported = input->type == GGML_TYPE_F32 && input->nb[0] == sizeof(float) &&
                                 op->nb[0] == sizeof(float) && input->ne[3] == 1;
    const bool matrices_supported =
        op->op == GGML_OP_MUL_MAT ? ggml_is_matrix(weights) && ggml_is_matrix(input)
                                  : ids->nb[0] == sizeof(int32_t) && ggml_is_matrix(ids);
    return weights_supported && input_supported && matrices_supported ? &traits : nullptr;
}

}  // namespace
