#include "kernels.h"

#if KERNELS_FOR_AMX

#define KERNEL_TILES

namespace {

constexpr const char * INSTRUCTION_SET = "AMX";

}  // namespace

#include "avx512_vector.h"
#include "avx512_super_blocks.h"
#include "avx512_weights.h"

#include "amx_plain.h"
#include "amx_products.h"
#include "amx_values.h"

#include "attention.h"
#include "mul_mat_traits.h"

#include "amx_blocks.h"
#include "amx_mul_mat.h"
#include "avx512_rows.h"

ggml::cpu::tensor_traits * amx_traits(const ggml_tensor * op) {
    ggml::cpu::tensor_traits * traits = mul_mat_traits(op);
    return traits != nullptr ? traits : attention_traits(op);
}

#endif
