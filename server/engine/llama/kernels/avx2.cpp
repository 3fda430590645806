#include "kernels.h"

#if KERNELS_FOR_X86

#include "avx2_vector.h"
#include "avx2_super_blocks.h"
#include "avx2_weights.h"

#include "attention_products.h"
#include "attention_values.h"

#include "attention.h"
#include "mul_mat_plain.h"
#include "mul_mat_traits.h"
#include "rotation.h"

#include "avx2_rows.h"

ggml::cpu::tensor_traits * avx2_traits(const ggml_tensor * op) {
    if (is_rotation(op)) {
        return rotation_traits(op);
    }
    ggml::cpu::tensor_traits * traits = mul_mat_traits(op);
    return traits != nullptr ? traits : attention_traits(op);
}

bool a_kernel_multiplies(const ggml_tensor * weights) { return multiplies(weights); }

#endif
