// The kernels of this folder: flash attention (attention.h) and matrix multiplication (mul_mat.h), each
// compiled for AVX2 and for AVX-512.
#pragma once

#include "ggml.h"
#include "traits.h"

// The kernel for an operation, or null if llama.cpp must compute it. AVX-512 includes VNNI here.
ggml::cpu::tensor_traits * avx2_traits(const ggml_tensor * op);
ggml::cpu::tensor_traits * avx512_traits(const ggml_tensor * op);

// Whether a kernel multiplies such weights where they lie in the file. Those for AVX-512 take no others.
bool avx2_multiplies(const ggml_tensor * weights);
