/* How llama.cpp's kernels read half-precision scales on x86. The C compiler includes this file when
 * llama.cpp is compiled (kernels.cmake); nothing else uses it.
 *
 * Each block of 32 quantized numbers has scales in half precision. llama.cpp looks them up in a
 * table of 256 KB where the architecture brings no way of its own, which its simd-mappings.h leaves
 * open with this macro. A weight's scale is another one for each block, and the table is out of the
 * first-level cache by then: the processor's own conversion is faster. The scales of activations
 * are few and used again for each row of weights: there the table is faster. In the kernels, `y`
 * are the activations. Both ways give the same float for each half but NaNs.
 *
 * What it brings is measured in docs/benchmarks.md.
 */
#if defined(__F16C__)
#define GGML_CPU_FP16_TO_FP32(half) \
    (#half[0] == 'y' ? ggml_table_f32_f16[(uint16_t)(half)] : _cvtsh_ss(half))
#endif
