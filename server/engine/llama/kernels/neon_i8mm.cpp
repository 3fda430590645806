#include "kernels.h"

#if KERNELS_FOR_AARCH64

// Matrix products of bytes are optional from Armv8.2 on; processors with them have dot products, too.
#if defined(__ARM_FEATURE_MATMUL_INT8)
#define KERNEL
#elif defined(__ARM_FEATURE_DOTPROD)
#define KERNEL __attribute__((target("+i8mm")))
#else
#define KERNEL __attribute__((target("arch=armv8.2-a+dotprod+i8mm")))
#endif

namespace {

constexpr const char * INSTRUCTION_SET = "NEON with i8mm";

}  // namespace

#include "neon_vector.h"
#include "neon_i8mm_super_blocks.h"
#include "neon_weights.h"

#include "attention_products.h"
#include "attention_values.h"

#include "attention.h"
#include "mul_mat_plain.h"
#include "mul_mat_traits.h"
#include "rotation.h"

ggml::cpu::tensor_traits * neon_i8mm_traits(const ggml_tensor * op) {
    if (is_rotation(op)) {
        return rotation_traits(op);
    }
    ggml::cpu::tensor_traits * traits = mul_mat_traits(op);
    return traits != nullptr ? traits : attention_traits(op);
}

#endif
