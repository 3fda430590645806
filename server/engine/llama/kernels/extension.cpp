/* Registers the kernels of this folder with llama.cpp when its library is loaded.
 *
 * An "extra buffer type" may take over operations; llama.cpp's own repacking uses the same
 * hook. Ours allocates no buffers: tensors stay where they are.
 */
#include <cstdlib>
#include <cstring>

#include "declined.h"
#include "ggml-backend-impl.h"
#include "ggml-cpu.h"
#include "kernels.h"

#if KERNELS_FOR_AARCH64 && defined(__linux__)
#include <sys/auxv.h>
#endif

#if KERNELS_FOR_AMX
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#if KERNELS_FOR_X86 || KERNELS_FOR_AARCH64

namespace {

using FindTraits = ggml::cpu::tensor_traits *(const ggml_tensor *);

class KernelBufferType : public ggml::cpu::extra_buffer_type {
  public:
    explicit KernelBufferType(FindTraits * find_traits) : find_traits(find_traits) {}

  private:
    FindTraits * find_traits;

    // Whether tensors may be allocated in a buffer of this type.
    bool supports_op(ggml_backend_dev_t, const ggml_tensor *) override { return false; }

    ggml::cpu::tensor_traits * get_tensor_traits(const ggml_tensor * op) override {
        ggml::cpu::tensor_traits * traits = find_traits(op);
        if (traits == nullptr) {
            note_declined(op);
        }
        return traits;
    }
};

// Declines weights that our kernels multiply as they lie in the file, and leaves the rest to llama.cpp's
// repacking: that copies weights into anonymous memory while it loads them, and its products are slower.
class WithoutOurWeights : public ggml::cpu::extra_buffer_type {
  public:
    explicit WithoutOurWeights(ggml::cpu::extra_buffer_type * repacking) : repacking(repacking) {}

  private:
    ggml::cpu::extra_buffer_type * repacking;

    bool supports_op(ggml_backend_dev_t device, const ggml_tensor * op) override {
        return !a_kernel_multiplies(op->src[0]) && repacking->supports_op(device, op);
    }

    ggml::cpu::tensor_traits * get_tensor_traits(const ggml_tensor * op) override {
        return repacking->get_tensor_traits(op);
    }
};

void leave_our_weights_in_place(ggml_backend_buffer_type_t type) {
    static WithoutOurWeights context(static_cast<ggml::cpu::extra_buffer_type *>(type->context));
    type->context = &context;
}

const char * get_name(ggml_backend_buffer_type_t) { return "dragoman"; }

ggml_backend_buffer_t alloc_buffer(ggml_backend_buffer_type_t, size_t) { return nullptr; }

size_t get_alignment(ggml_backend_buffer_type_t) { return 1; }

#if KERNELS_FOR_X86

// Registers of 16 lanes decline odd multiples of 8, in rows and in head dimensions.
ggml::cpu::tensor_traits * avx512_or_avx2_traits(const ggml_tensor * op) {
    ggml::cpu::tensor_traits * traits = avx512_traits(op);
    return traits != nullptr ? traits : avx2_traits(op);
}

#if KERNELS_FOR_AMX

// Another kernel replaces one that fails its test.
ggml::cpu::tensor_traits * amx_or_other_traits(const ggml_tensor * op) {
    ggml::cpu::tensor_traits * traits = amx_traits(op);
    return traits != nullptr ? traits : avx512_or_avx2_traits(op);
}

// Whether this process may use tiles of bytes and of bfloat16, and vectors of half precision. Linux saves the 8 KB of a
// thread's tiles only in processes that ask for it (Documentation/arch/x86/xstate.rst). Compilers differ in the names by which
// they ask the processor.
bool may_use_tiles() {
    constexpr unsigned TILES_BYTES_AND_BRAIN_HALVES = 1u << 24 | 1u << 25 | 1u << 22;  // of EDX
    constexpr unsigned NEEDED = TILES_BYTES_AND_BRAIN_HALVES | 1u << 23;               // and AVX512-FP16
    unsigned eax, ebx, ecx, edx;
    if (!__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) ||
        (edx & NEEDED) != NEEDED) {
        return false;
    }
    constexpr long REQUEST_STATE = 0x1023, TILE_DATA = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
    return syscall(SYS_arch_prctl, REQUEST_STATE, TILE_DATA) == 0;
}

#endif

// Whether the kernels for later instruction sets are left out, so that those for AVX2 are tested on processors
// that have more.
bool only_avx2() {
    const char * variable = getenv("GGML_DRAGOMAN_AVX2");
    return variable != nullptr && variable[0] != '\0';
}

// The kernels for this processor, or null if there are none.
FindTraits * kernels_for_this_processor() {
    __builtin_cpu_init();
    // Every processor with AVX2 has F16C.
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) {
        return nullptr;
    }
    if (only_avx2()) {
        return avx2_traits;
    }
    const bool avx512 =
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni");
#if KERNELS_FOR_AMX
    if (avx512 && may_use_tiles()) {
        return amx_or_other_traits;
    }
#endif
    return avx512 ? avx512_or_avx2_traits : avx2_traits;
}

#else

// Every processor that runs llama.cpp has what it is compiled for. Linux says what else there is, by bits that old
// headers do not name.

bool has_dot_products() {
#if defined(__ARM_FEATURE_DOTPROD)
    return true;
#elif defined(__linux__)
    return getauxval(AT_HWCAP) >> 20 & 1;  // HWCAP_ASIMDDP
#else
    return false;
#endif
}

bool has_matrix_products() {
#if defined(__ARM_FEATURE_MATMUL_INT8)
    return true;
#elif defined(__linux__)
    return getauxval(AT_HWCAP2) >> 13 & 1;  // HWCAP2_I8MM
#else
    return false;
#endif
}

// The kernels for this processor, or null if there are none.
FindTraits * kernels_for_this_processor() {
    if (!has_dot_products()) {
        return nullptr;
    }
    return has_matrix_products() ? neon_i8mm_traits : neon_traits;
}

#endif

bool registered = false;

__attribute__((constructor)) void register_kernels() {
    FindTraits * const find_traits = kernels_for_this_processor();
    if (find_traits == nullptr) {
        return;
    }
    static KernelBufferType context(find_traits);
    static ggml_backend_buffer_type type = {
        {get_name, alloc_buffer, get_alignment, nullptr, nullptr, nullptr},
        ggml_backend_reg_dev_get(ggml_backend_cpu_reg(), 0),
        &context,
    };
    auto & types = ggml_backend_cpu_get_extra_buffer_types();
    for (ggml_backend_buffer_type_t other : types) {
        if (strcmp(ggml_backend_buft_name(other), "CPU_REPACK") == 0) {
            leave_our_weights_in_place(other);
        }
    }
    // Before the others, so that what they compute is noted as well. They keep the weights in their own buffers.
    types.insert(types.begin(), &type);
    registered = true;
}

}  // namespace

// For server/engine/llama/declined.py: the first operation that the calling thread's computations left to other code
// since the last call (declined.h), as text that stays until the next call; null if there was none.
extern "C" __attribute__((visibility("default"))) const char * dragoman_declined();

const char * dragoman_declined() {
    return registered ? take_declined() : "everything";
}

#endif
