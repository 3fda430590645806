// The kernels that llama.cpp is compiled with; each file says what for.
#pragma once

#include "ggml.h"
#include "traits.h"

// How to compute an operation, or null where that is left to llama.cpp. Only for processors with
// AVX-512 and its VNNI.
ggml::cpu::tensor_traits * attention_traits(const ggml_tensor * op);
ggml::cpu::tensor_traits * mul_mat_traits(const ggml_tensor * op);
