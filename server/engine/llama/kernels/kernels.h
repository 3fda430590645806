// The kernels of this folder: flash attention (attention.h), matrix multiplication (mul_mat.h) and rotations
// (rotation.h), compiled for AVX2, AVX-512 and NEON.
#pragma once

#include "ggml.h"
#include "traits.h"

// The processors that there are kernels for. They are written for GCC and Clang, not for Windows.
#if defined(__GNUC__) && !defined(_WIN32)
#if defined(__x86_64__)
#define KERNELS_FOR_X86 1
// Compilers since 2022 know AMX and half precision, which every processor with AMX has. Linux is the only system that we know
// how to ask for tiles.
#if defined(__linux__) && __has_include(<amxint8intrin.h>) && __has_include(<avx512fp16intrin.h>)
#define KERNELS_FOR_AMX 1
#endif
#elif defined(__AARCH64EL__)
#define KERNELS_FOR_AARCH64 1
#endif
#endif

// The kernel for an operation, or null if llama.cpp must compute it. AVX-512 includes VNNI here, AMX both and tiles,
// NEON dot products of bytes, and i8mm matrix products of bytes besides.
ggml::cpu::tensor_traits * avx2_traits(const ggml_tensor * op);
ggml::cpu::tensor_traits * avx512_traits(const ggml_tensor * op);
ggml::cpu::tensor_traits * amx_traits(const ggml_tensor * op);
ggml::cpu::tensor_traits * neon_traits(const ggml_tensor * op);
ggml::cpu::tensor_traits * neon_i8mm_traits(const ggml_tensor * op);

// Whether a kernel multiplies such weights where they lie in the file. Those for AVX-512 and AMX take no others than
// those for AVX2, and those for i8mm the same as those for NEON.
bool a_kernel_multiplies(const ggml_tensor * weights);

// Whether a product is a rotation of what quantized KV cells hold, for which there is a faster way.
inline bool is_rotation(const ggml_tensor * op) {
    return op->op == GGML_OP_MUL_MAT && op->op_params[1] == GGML_HINT_SRC0_IS_HADAMARD;
}
