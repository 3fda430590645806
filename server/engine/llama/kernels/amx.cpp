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
#include "attention.h"
#include "mul_mat_traits.h"

#include "amx_blocks.h"
#include "amx_mul_mat.h"

ggml::cpu::tensor_traits * amx_traits(const ggml_tensor * op) {
    if (op->op == GGML_OP_FLASH_ATTN_EXT) {
        // With longer heads, decoding takes up to a quarter longer by tiles; the kernel for AVX-512 computes them.
        return op->src[1]->ne[0] <= 64 ? attention_traits(op) : nullptr;
    }
    return mul_mat_traits(op);
}

#endif
