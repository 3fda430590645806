// The kernels that llama.cpp is compiled with: attention.h and mul_mat.h say what for. Each is compiled
// for several kinds of x86 processors.
#pragma once

#include "ggml.h"
#include "traits.h"

// How to compute an operation, or null where that is left to llama.cpp. `avx512` wants its VNNI too.
ggml::cpu::tensor_traits * avx2_traits(const ggml_tensor * op);
ggml::cpu::tensor_traits * avx512_traits(const ggml_tensor * op);
