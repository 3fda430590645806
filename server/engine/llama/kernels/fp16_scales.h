/* Faster conversion of half-precision scales in llama.cpp's own x86 kernels. The C compiler includes
 * this file in every C source of ggml-cpu (kernels.cmake).
 *
 * Every block of 32 quants has half-precision scales. By default llama.cpp converts them with a lookup
 * table of 256 KB; its simd-mappings.h lets an architecture define this macro instead. Each block of
 * weights has a scale of its own, so the table misses the L1 cache, and the processor's conversion
 * instruction is faster. The few scales of activations are used again for every row of weights, and
 * there the table is faster. llama.cpp's kernels call the activations `y`. Both conversions give the
 * same float for every half except NaNs.
 *
 * docs/benchmarks.md has the gain.
 */
#if defined(__F16C__)
#define GGML_CPU_FP16_TO_FP32(half) \
    (#half[0] == 'y' ? ggml_table_f32_f16[(uint16_t)(half)] : _cvtsh_ss(half))
#endif
