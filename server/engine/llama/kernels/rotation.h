// Walsh-Hadamard rotations: llama.cpp applies them to heads before it quantizes their keys and values, so that no number
// stands out from its block, and to queries and results. They are products with a matrix of +-1 / sqrt(size), in which
// sums of sums take the place of rows.
#pragma once

#include <cmath>
#include <vector>

#include "self_test.h"

namespace {

// 1 in lanes whose number has a 0 at the bit of DISTANCE, -1 in the others.
template <int64_t DISTANCE>
struct Signs {
    float of_lanes[LANES];

    constexpr Signs() : of_lanes() {
        for (int64_t lane = 0; lane < LANES; lane++) {
            of_lanes[lane] = (lane & DISTANCE) == 0 ? 1 : -1;
        }
    }
};

// The sums of each two lanes that far apart in the first of them, the differences in the second.
template <int64_t DISTANCE>
KERNEL inline Floats add_lanes(Floats a) {
    static constexpr Signs<DISTANCE> SIGNS;
    return multiply_add(a, load_unaligned(SIGNS.of_lanes), exchange_lanes<DISTANCE>(a));
}

// Adds in llama.cpp's order (ggml_compute_forward_fwht): neighbours first. So the results are the same to the bit.
template <int64_t SIZE>
KERNEL void rotate(const float * numbers, float * rotated) {
    constexpr int64_t REGISTERS = SIZE / LANES;
    const Floats scale = broadcast(1 / std::sqrt(float(SIZE)));
    Floats sums[REGISTERS];
    for (int64_t i = 0; i < REGISTERS; i++) {
        Floats a = multiply(load_unaligned(numbers + i * LANES), scale);
        a = add_lanes<4>(add_lanes<2>(add_lanes<1>(a)));
        if constexpr (LANES > 8) {
            a = add_lanes<8>(a);
        }
        sums[i] = a;
    }
    for (int64_t distance = 1; distance < REGISTERS; distance *= 2) {
        for (int64_t i = 0; i < REGISTERS; i++) {
            if ((i & distance) == 0) {
                const Floats a = sums[i], b = sums[i + distance];
                sums[i] = add(a, b);
                sums[i + distance] = subtract(a, b);
            }
        }
    }
    for (int64_t i = 0; i < REGISTERS; i++) {
        store_unaligned(rotated + i * LANES, sums[i]);
    }
}

using Rotate = void(const float * numbers, float * rotated);

bool passes_self_test(Rotate * rotate, int64_t size) {
    std::vector<float> matrix(size * size), numbers(size), rotated(size);
    for (int64_t i = 0; i < size * size; i++) {
        const bool is_odd = __builtin_parityll((i / size) & (i % size));
        matrix[i] = (is_odd ? -1 : 1) / std::sqrt(float(size));
    }
    Numbers random;
    for (float & number : numbers) {
        number = random.next();
    }
    rotate(numbers.data(), rotated.data());
    return products_are_right(matrix.data(), size, numbers.data(), 1, size, rotated.data());
}

// The rotation, or null if it does not pass its test, which it takes once.
template <int64_t SIZE>
Rotate * tested_rotation() {
    static const bool passed = [] {
        const bool right = passes_self_test(rotate<SIZE>, SIZE);
        if (!right) {
            GGML_LOG_WARN("dragoman: the %s kernel for rotations of %d gives wrong results on this processor; "
                          "llama.cpp's own code replaces it\n",
                          INSTRUCTION_SET, int(SIZE));
        }
        return right;
    }();
    return passed ? rotate<SIZE> : nullptr;
}

Rotate * rotation_of(int64_t size) {
    switch (size) {
        case 64:
            return tested_rotation<64>();
        case 128:
            return tested_rotation<128>();
        case 256:
            return tested_rotation<256>();
        default:
            return nullptr;
    }
}

class RotationTraits : public ggml::cpu::tensor_traits {
    bool work_size(int, const ggml_tensor *, size_t & size) override {
        size = 0;
        return true;
    }

    // Every thread of llama.cpp's pool calls this and computes its part.
    bool compute_forward(ggml_compute_params * params, ggml_tensor * op) override {
        const int64_t size = op->ne[0], rows = ggml_nrows(op);
        Rotate * rotate = rotation_of(size);
        const auto * numbers = static_cast<const float *>(op->src[1]->data);
        auto * rotated = static_cast<float *>(op->data);
        const int64_t last = rows * (params->ith + 1) / params->nth;
        for (int64_t row = rows * params->ith / params->nth; row < last; row++) {
            rotate(numbers + row * size, rotated + row * size);
        }
        return true;
    }
};

ggml::cpu::tensor_traits * rotation_traits(const ggml_tensor * op) {
    static RotationTraits traits;
    if (!is_rotation(op) || op->src[1]->type != GGML_TYPE_F32 || !ggml_is_contiguous(op->src[1]) ||
        !ggml_is_contiguous(op) || rotation_of(op->ne[0]) == nullptr) {
        return nullptr;
    }
    return &traits;
}

}  // namespace
