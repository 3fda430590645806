/* Matrix products for llama.cpp on x86 processors with AVX-512 VNNI, of weights in blocks of 32: Q4_0,
 * Q4_1, Q5_0, Q5_1 and Q8_0. On other processors it does nothing.
 *
 * llama.cpp multiplies weights of these formats row by row with the activations of each token, and
 * unpacks them again for each. Here a block of 16 rows is unpacked at once, a row in each lane, and
 * multiplied with those of all tokens. A token's result does not depend on how many others there are.
 *
 * tests/unit/engine/test_kernels.py compares it with exact products; what it brings is measured in
 * docs/benchmarks.md.
 */
#include "kernels.h"

#if defined(__x86_64__) && defined(__GNUC__)

#define GGML_COMMON_DECL_CPP
#include <immintrin.h>

#include <algorithm>

#include "ggml-backend-impl.h"
#include "ggml-common.h"
#include "ggml-cpu-impl.h"

#define VNNI __attribute__((target("avx512f,avx512bw,avx512vl,avx512vnni,f16c,fma")))

namespace {

constexpr int64_t BLOCK = 32;  // numbers in a block
constexpr int64_t STRIP = 16;  // rows of weights, multiplied together
constexpr int64_t TILE = 64;   // tokens whose sums fit in the first-level cache, a register for each

// A block of each row of a strip: weight = scale * quant + offset.
struct Weights {
    __m512i quants[BLOCK / 4];  // unsigned; those of four neighbours are the bytes of a lane
    __m512 scale, offset;
};

// A block of the activations of a token: activation = scale * quant.
struct Activations {
    int8_t quants[BLOCK];
    float scale;
    float sum;  // scale times the sum of the quants
};

// The `BYTES` from `first` on, at most 32, and as many of each other row of the strip, `stride` bytes
// apart, as words of 32 bits: words[i] becomes word i of all rows. Reads nothing else: behind the
// last row there may be no memory.
template <size_t BYTES>
VNNI inline void transpose(const char * first, int64_t stride, __m512i words[8]) {
    constexpr __mmask16 halves = (1u << BYTES / 2) - 1;
    __m512i rows[8], quads[8];
    for (int i = 0; i < 8; i++) {
        const char * row = first + (i < 4 ? i : i + 4) * stride;
        const __m256i lower = _mm256_maskz_loadu_epi16(halves, row);
        const __m256i upper = _mm256_maskz_loadu_epi16(halves, row + 4 * stride);
        rows[i] = _mm512_inserti64x4(_mm512_castsi256_si512(lower), upper, 1);
    }
    for (int i = 0; i < 8; i += 4) {
        const __m512i low01 = _mm512_unpacklo_epi32(rows[i], rows[i + 1]);
        const __m512i high01 = _mm512_unpackhi_epi32(rows[i], rows[i + 1]);
        const __m512i low23 = _mm512_unpacklo_epi32(rows[i + 2], rows[i + 3]);
        const __m512i high23 = _mm512_unpackhi_epi32(rows[i + 2], rows[i + 3]);
        quads[i] = _mm512_unpacklo_epi64(low01, low23);
        quads[i + 1] = _mm512_unpackhi_epi64(low01, low23);
        quads[i + 2] = _mm512_unpacklo_epi64(high01, high23);
        quads[i + 3] = _mm512_unpackhi_epi64(high01, high23);
    }
    for (int i = 0; i < 4; i++) {
        words[i] = _mm512_shuffle_i32x4(quads[i], quads[i + 4], 0x88);
        words[i + 4] = _mm512_shuffle_i32x4(quads[i], quads[i + 4], 0xdd);
    }
}

// What the lower halves of the lanes are in half precision.
VNNI inline __m512 half_to_float(__m512i words) {
    return _mm512_cvtph_ps(_mm512_cvtepi32_epi16(words));
}

// 16 more for each quant whose bit is set, bit i of a lane for quant i of its row.
VNNI inline void add_fifth_bits(__m512i bits, __m512i quants[8]) {
    const __m512i even_bits = _mm512_set1_epi32(0x08040201);
    const __m512i odd_bits = _mm512_set1_epi32(int(0x80402010));
    const __m512i sixteen = _mm512_set1_epi8(16);
    __m512i from = _mm512_set4_epi32(0x0c0c0c0c, 0x08080808, 0x04040404, 0x00000000);
    for (int i = 0; i < 8; i += 2) {
        const __m512i byte = _mm512_shuffle_epi8(bits, from);
        const __mmask64 even = _mm512_test_epi8_mask(byte, even_bits);
        const __mmask64 odd = _mm512_test_epi8_mask(byte, odd_bits);
        quants[i] = _mm512_mask_add_epi8(quants[i], even, quants[i], sixteen);
        quants[i + 1] = _mm512_mask_add_epi8(quants[i + 1], odd, quants[i + 1], sixteen);
        from = _mm512_add_epi8(from, _mm512_set1_epi8(1));
    }
}

// In memory: the scale; the minimum, if there is one, else quants stand for numbers around zero; the
// fifth bits of the quants, if they have; the other four, quant i and quant i + 16 in a byte.
template <typename Block, bool HAS_MINIMUM, bool HAS_FIFTH_BITS>
VNNI inline void unpack(const char * first, int64_t stride, Weights & weights) {
    __m512i words[8];
    transpose<sizeof(Block)>(first, stride, words);
    weights.scale = half_to_float(words[0]);
    if (HAS_MINIMUM) {
        weights.offset = half_to_float(_mm512_srli_epi32(words[0], 16));
    } else {
        weights.offset = _mm512_mul_ps(weights.scale, _mm512_set1_ps(HAS_FIFTH_BITS ? -16 : -8));
    }
    // Without a minimum the quants begin in the middle of a word.
    const auto word = [&](int i) VNNI {
        return HAS_MINIMUM ? words[i + 1]
                           : _mm512_or_si512(_mm512_srli_epi32(words[i], 16),
                                             _mm512_slli_epi32(words[i + 1], 16));
    };
    const __m512i nibble = _mm512_set1_epi8(15);
    for (int i = 0; i < 4; i++) {
        const __m512i pairs = word(i + HAS_FIFTH_BITS);
        weights.quants[i] = _mm512_and_si512(pairs, nibble);
        weights.quants[i + 4] = _mm512_and_si512(_mm512_srli_epi16(pairs, 4), nibble);
    }
    if (HAS_FIFTH_BITS) {
        add_fifth_bits(word(0), weights.quants);
    }
}

// In memory: the scale, the quants, signed.
VNNI inline void unpack_q8_0(const char * first, int64_t stride, Weights & weights) {
    transpose<BLOCK>(first + offsetof(block_q8_0, qs), stride, weights.quants);
    for (__m512i & quants : weights.quants) {
        quants = _mm512_xor_si512(quants, _mm512_set1_epi8(-128));
    }
    ggml_half scales[STRIP];
    for (int row = 0; row < STRIP; row++) {
        scales[row] = reinterpret_cast<const block_q8_0 *>(first + row * stride)->d;
    }
    weights.scale = _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<__m256i *>(scales)));
    weights.offset = _mm512_mul_ps(weights.scale, _mm512_set1_ps(-128));
}

using Unpack = void(const char *, int64_t, Weights &);

// The products of the rows of a strip with `tokens` tokens, a register for each. Activations lie
// block by block, token by token.
template <typename Block, Unpack unpack_block>
VNNI void multiply(const char * strip, int64_t stride, int64_t blocks,
                   const Activations * activations, int64_t tokens, __m512 sums[TILE]) {
    for (int64_t token = 0; token < tokens; token++) {
        sums[token] = _mm512_setzero_ps();
    }
    for (int64_t block = 0; block < blocks; block++) {
        // What follows in memory comes with the next strip: 16 rows at a time are too many places
        // for the processor to foresee.
        const char * next = strip + STRIP * (stride + block * int64_t(sizeof(Block)));
        for (size_t offset = 0; offset < STRIP * sizeof(Block); offset += 64) {
            _mm_prefetch(next + offset, _MM_HINT_T0);
        }
        Weights weights;
        unpack_block(strip + block * sizeof(Block), stride, weights);
        for (int64_t token = 0; token < tokens; token++, activations++) {
            const int32_t * quants = reinterpret_cast<const int32_t *>(activations->quants);
            __m512i even = _mm512_setzero_si512(), odd = _mm512_setzero_si512();
            for (int i = 0; i < 8; i += 2) {
                even = _mm512_dpbusd_epi32(even, weights.quants[i], _mm512_set1_epi32(quants[i]));
                odd = _mm512_dpbusd_epi32(odd, weights.quants[i + 1], _mm512_set1_epi32(quants[i + 1]));
            }
            const __m512 product = _mm512_cvtepi32_ps(_mm512_add_epi32(even, odd));
            const __m512 scale = _mm512_mul_ps(weights.scale, _mm512_set1_ps(activations->scale));
            const __m512 sum = _mm512_fmadd_ps(scale, product, sums[token]);
            sums[token] = _mm512_fmadd_ps(weights.offset, _mm512_set1_ps(activations->sum), sum);
        }
    }
}

VNNI void quantize(const float * numbers, Activations & activations) {
    const __m512 lower = _mm512_loadu_ps(numbers), upper = _mm512_loadu_ps(numbers + 16);
    const float largest =
        _mm512_reduce_max_ps(_mm512_max_ps(_mm512_abs_ps(lower), _mm512_abs_ps(upper)));
    const __m512 inverse = _mm512_set1_ps(largest > 0 ? 127 / largest : 0);
    const __m512i lower_quants = _mm512_cvtps_epi32(_mm512_mul_ps(lower, inverse));
    const __m512i upper_quants = _mm512_cvtps_epi32(_mm512_mul_ps(upper, inverse));
    __m128i * quants = reinterpret_cast<__m128i *>(activations.quants);
    _mm_storeu_si128(quants, _mm512_cvtsepi32_epi8(lower_quants));
    _mm_storeu_si128(quants + 1, _mm512_cvtsepi32_epi8(upper_quants));
    activations.scale = largest / 127;
    activations.sum =
        activations.scale * _mm512_reduce_add_epi32(_mm512_add_epi32(lower_quants, upper_quants));
}

// The operation, a thread's part of it.
template <typename Block, Unpack unpack_block>
VNNI void mul_mat(const ggml_compute_params * params, ggml_tensor * result) {
    const ggml_tensor *weights = result->src[0], *input = result->src[1];
    const int64_t tokens = input->ne[1], blocks = weights->ne[0] / BLOCK;
    const int64_t strips = weights->ne[1] / STRIP, stride = weights->nb[1];
    auto * activations = static_cast<Activations *>(params->wdata);

    // Tile by tile, within one block by block.
    for (int64_t token = params->ith; token < tokens; token += params->nth) {
        const auto * numbers = reinterpret_cast<const float *>(
            static_cast<const char *>(input->data) + token * input->nb[1]);
        const int64_t tile = token - token % TILE, width = std::min(TILE, tokens - tile);
        for (int64_t block = 0; block < blocks; block++) {
            quantize(numbers + block * BLOCK,
                     activations[tile * blocks + block * width + token - tile]);
        }
    }
    if (params->ith == 0) {
        ggml_threadpool_chunk_set(params->threadpool, params->nth);
    }
    ggml_barrier(params->threadpool);

    // Several chunks for each thread: one that is held up leaves the rest to the others.
    const int64_t chunk_size = std::max<int64_t>(1, strips / (4 * params->nth));
    const int64_t chunks = (strips + chunk_size - 1) / chunk_size;
    for (int64_t chunk = params->ith; chunk < chunks;
         chunk = ggml_threadpool_chunk_add(params->threadpool, 1)) {
        const int64_t end = std::min(strips, (chunk + 1) * chunk_size);
        for (int64_t strip = chunk * chunk_size; strip < end; strip++) {
            const char * rows = static_cast<const char *>(weights->data) + strip * STRIP * stride;
            for (int64_t tile = 0; tile < tokens; tile += TILE) {
                const int64_t width = std::min(TILE, tokens - tile);
                __m512 sums[TILE];
                multiply<Block, unpack_block>(rows, stride, blocks, activations + tile * blocks,
                                              width, sums);
                for (int64_t token = 0; token < width; token++) {
                    char * column = static_cast<char *>(result->data) + (tile + token) * result->nb[1];
                    _mm512_storeu_ps(reinterpret_cast<float *>(column) + strip * STRIP, sums[token]);
                }
            }
        }
    }
}

using Kernel = void(const ggml_compute_params *, ggml_tensor *);

Kernel * kernel_for(ggml_type type) {
    switch (type) {
        case GGML_TYPE_Q4_0:
            return mul_mat<block_q4_0, unpack<block_q4_0, false, false>>;
        case GGML_TYPE_Q4_1:
            return mul_mat<block_q4_1, unpack<block_q4_1, true, false>>;
        case GGML_TYPE_Q5_0:
            return mul_mat<block_q5_0, unpack<block_q5_0, false, true>>;
        case GGML_TYPE_Q5_1:
            return mul_mat<block_q5_1, unpack<block_q5_1, true, true>>;
        case GGML_TYPE_Q8_0:
            return mul_mat<block_q8_0, unpack_q8_0>;
        default:
            return nullptr;
    }
}

class MulMat : public ggml::cpu::tensor_traits {
    bool work_size(int, const ggml_tensor * op, size_t & size) override {
        size = ggml_nelements(op->src[1]) / BLOCK * sizeof(Activations);
        return true;
    }

    // Each of llama.cpp's threads calls it and computes a part.
    bool compute_forward(ggml_compute_params * params, ggml_tensor * op) override {
        kernel_for(op->src[0]->type)(params, op);
        return true;
    }
};

}  // namespace

ggml::cpu::tensor_traits * mul_mat_traits(const ggml_tensor * op) {
    static MulMat mul_mat;
    if (op->op != GGML_OP_MUL_MAT || kernel_for(op->src[0]->type) == nullptr) {
        return nullptr;
    }
    const ggml_tensor *weights = op->src[0], *input = op->src[1];
    const bool in_reach = weights->buffer != nullptr &&
                          ggml_backend_buft_is_host(weights->buffer->buft) &&
                          ggml_is_contiguous(weights) && ggml_is_matrix(weights) &&
                          weights->ne[1] % STRIP == 0;
    const bool plain = input->type == GGML_TYPE_F32 && input->nb[0] == sizeof(float) &&
                       ggml_is_matrix(input) && op->nb[0] == sizeof(float);
    return in_reach && plain ? &mul_mat : nullptr;
}

#else

ggml::cpu::tensor_traits * mul_mat_traits(const ggml_tensor *) { return nullptr; }

#endif
