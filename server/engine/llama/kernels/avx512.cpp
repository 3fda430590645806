#include "kernels.h"

#if KERNELS_FOR_X86

namespace {

constexpr const char * INSTRUCTION_SET = "AVX-512";

}  // namespace

#include "avx512_vector.h"
#include "avx512_super_blocks.h"
#include "avx512_weights.h"

#include "attention_products.h"
#include "attention_values.h"

#include "attention.h"
#include "mul_mat_plain.h"
#include "mul_mat_traits.h"
#include "rotation.h"

#include "avx512_rows.h"

ggml::cpu::tensor_traits * avx512_traits(const ggml_tensor * op) {
    if (is_rotation(op)) {
        return rotation_traits(op);
    }
    ggml::cpu::tensor_traits * traits = mul_mat_traits(op);
    return traits != nullptr ? traits : attention_traits(op);
}

#endif
