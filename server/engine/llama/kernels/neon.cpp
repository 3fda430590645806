#include "kernels.h"

#if KERNELS_FOR_AARCH64

// Dot products of bytes are optional in Armv8.2. With a target that has them, as on macOS, there is nothing to add:
// naming an architecture would take the target's other instructions away.
#if defined(__ARM_FEATURE_DOTPROD)
#define KERNEL
#else
#define KERNEL __attribute__((target("arch=armv8.2-a+dotprod")))
#endif

namespace {

constexpr const char * INSTRUCTION_SET = "NEON";

}  // namespace

#include "neon_vector.h"
#include "neon_super_blocks.h"
#include "neon_weights.h"

#include "attention_products.h"
#include "attention_values.h"

#include "attention.h"
#include "mul_mat_plain.h"
#include "mul_mat_traits.h"
#include "rotation.h"

ggml::cpu::tensor_traits * neon_traits(const ggml_tensor * op) {
    if (is_rotation(op)) {
        return rotation_traits(op);
    }
    ggml::cpu::tensor_traits * traits = mul_mat_traits(op);
    return traits != nullptr ? traits : attention_traits(op);
}

bool a_kernel_multiplies(const ggml_tensor * weights) { return multiplies(weights); }

#endif
