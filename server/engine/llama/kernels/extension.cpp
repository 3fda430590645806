/* Hands operations to the kernels of this folder, where llama.cpp's own extensions hook in too: an
 * "extra buffer type" may take over operations. This one has no buffers: tensors stay where they are.
 */
#include "ggml-backend-impl.h"
#include "ggml-cpu.h"
#include "kernels.h"

#if defined(__x86_64__) && defined(__GNUC__) && !defined(_WIN32)

namespace {

using Traits = ggml::cpu::tensor_traits *(const ggml_tensor *);

class Extension : public ggml::cpu::extra_buffer_type {
  public:
    explicit Extension(Traits * traits) : traits(traits) {}

  private:
    Traits * traits;

    // Whether tensors may lie in a buffer of this type.
    bool supports_op(ggml_backend_dev_t, const ggml_tensor *) override { return false; }

    ggml::cpu::tensor_traits * get_tensor_traits(const ggml_tensor * op) override {
        return traits(op);
    }
};

const char * get_name(ggml_backend_buffer_type_t) { return "dragoman"; }

ggml_backend_buffer_t alloc_buffer(ggml_backend_buffer_type_t, size_t) { return nullptr; }

size_t get_alignment(ggml_backend_buffer_type_t) { return 1; }

// The kernels for this processor, if there are any.
Traits * find_traits() {
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni")) {
        return avx512_traits;
    }
    // Processors with AVX2 have F16C.
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? avx2_traits : nullptr;
}

__attribute__((constructor)) void extend_llama_cpp() {
    Traits * const traits = find_traits();
    if (traits == nullptr) {
        return;
    }
    static Extension extension(traits);
    static ggml_backend_buffer_type type = {
        {get_name, alloc_buffer, get_alignment, nullptr, nullptr, nullptr},
        ggml_backend_reg_dev_get(ggml_backend_cpu_reg(), 0),
        &extension,
    };
    ggml_backend_cpu_get_extra_buffer_types().push_back(&type);
}

}  // namespace

#endif
