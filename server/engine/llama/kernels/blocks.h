// Formats of quantized weights in blocks of 32: Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, IQ4_NL and MXFP4 (ggml-common.h).
#pragma once

#define GGML_COMMON_DECL_CPP
#include <cstdint>
#include <limits>
#include <type_traits>

#include "ggml-common.h"

namespace {

constexpr int64_t BLOCK_SIZE = 32;

constexpr uint32_t NIBBLES = 0x0f0f0f0f;  // the lower four bits of each byte of a word

constexpr uint32_t in_every_byte(uint32_t bits) { return bits * 0x01010101; }

// The weights that codes stand for, in terms of the scale: IQ4_NL and IQ4_XS, and MXFP4, whose scale is halved.
constexpr int8_t IQ4_CODEBOOK[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                     1,    13,   25,  38,  53,  69,  89,  113};
constexpr int8_t MXFP4_CODEBOOK[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

// The same format with quants that are multiplied in 8 bits where others are in 16 (IS_WIDE).
template <typename Block>
struct Narrow : Block {};

template <typename Block>
constexpr bool IS_NARROW = false;
template <typename Block>
constexpr bool IS_NARROW<Narrow<Block>> = true;

template <typename Block>
constexpr bool IS_Q8_0 = std::is_base_of_v<block_q8_0, Block>;

template <typename Block>
constexpr bool IS_MXFP4 = std::is_same_v<Block, block_mxfp4>;

template <typename Block>
constexpr bool IS_IQ4 = std::is_base_of_v<block_iq4_nl, Block> || std::is_same_v<Block, block_iq4_xs>;

template <typename Block>
constexpr bool HAS_CODEBOOK = IS_IQ4<Block> || IS_MXFP4<Block>;

// The quants that codes stand for: each weight plus an offset that depends on the instruction set.
struct Codebook {
    int8_t quants[16] = {};

    constexpr Codebook(const int8_t (&weights)[16], int offset) {
        for (int code = 0; code < 16; code++) {
            quants[code] = int8_t(weights[code] + offset);
        }
    }
};

template <typename Block>
constexpr int CODEBOOK_OFFSET = IS_MXFP4<Block> ? MXFP4_OFFSET : IQ4_OFFSET;

template <typename Block>
constexpr Codebook CODEBOOK{IS_MXFP4<Block> ? MXFP4_CODEBOOK : IQ4_CODEBOOK, CODEBOOK_OFFSET<Block>};

// weight = scale * quant + minimum. The other formats have quants around zero: weight = scale * quant.
template <typename Block>
constexpr bool HAS_MINIMUM = std::is_same_v<Block, block_q4_1> || std::is_same_v<Block, block_q5_1>;

// Quants have five bits; a field of its own holds the fifth, highest one.
template <typename Block>
constexpr bool HAS_FIFTH_BITS = std::is_same_v<Block, block_q5_0> || std::is_same_v<Block, block_q5_1>;

// What activations are multiplied with to be quantized, if `largest` is the largest of them: it becomes 127. All become 0 if
// they are too small for that.
inline float inverse_scale_for(float largest) {
    const float inverse_scale = 127 / largest;
    return inverse_scale <= std::numeric_limits<float>::max() ? inverse_scale : 0;
}

// A block of the activations of a token: activation = scale * quant.
struct ActivationBlock {
    int32_t quants[BLOCK_SIZE / 4];  // four bytes in each
    float scale;
    float scaled_sum;  // scale * (sum of the quants)
};

// The same with two quants of 16 bits in each word, in the order of widen() (avx2_words.h).
struct WideActivationBlock {
    int32_t quants[BLOCK_SIZE / 2];
    float scale;
    float scaled_sum;
};

// One block of each of as many rows as a register has lanes, a row in each lane: weight = scale * quant + offset.
struct WeightBlocks {
    Words quants[BLOCK_SIZE / 4];  // four neighbouring quants are the bytes of a lane
    Floats scale, offset;
};

struct WideWeightBlocks {
    Words quants[BLOCK_SIZE / 2];
    Floats scale, offset;
};

// Whether quants are multiplied in 16 bits: signed ones, with AVX2.
template <typename Block>
constexpr bool IS_WIDE = WIDENS_SIGNED_QUANTS && (IS_Q8_0<Block> || IS_IQ4<Block>) && !IS_NARROW<Block>;

template <typename Block>
using ActivationBlockOf = std::conditional_t<IS_WIDE<Block>, WideActivationBlock, ActivationBlock>;

template <typename Block>
using WeightBlocksOf = std::conditional_t<IS_WIDE<Block>, WideWeightBlocks, WeightBlocks>;

}  // namespace
