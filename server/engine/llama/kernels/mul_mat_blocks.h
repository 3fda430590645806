// Multiplies weights in blocks of 32 with activations. Included after the vector operations and weights of an
// instruction set.
#pragma once

#include "blocks.h"
#include "panel.h"

namespace {

// 2^(exponent - 128). The lowest two are not normal floats.
KERNEL inline Floats powers_of_two(Words exponents) {
    const Words subnormal = Words(exponents < 2);
    const Words normal_bits = (exponents - 1) << 23, subnormal_bits = (exponents + 1) << 21;
    return Floats((normal_bits & ~subnormal) | (subnormal_bits & subnormal));
}

// The scale of a block; a code for each quant, those of quants i and i + 16 in one byte.
template <typename Block>
KERNEL inline void unpack_codes(const char * first, int64_t stride, WeightBlocks & blocks) {
    Words scales, pairs[4];
    load_words<1>(first, stride, &scales);
    if constexpr (IS_MXFP4<Block>) {
        blocks.scale = powers_of_two(scales & 0xff);
    } else {
        blocks.scale = half_to_float(scales);
    }
    blocks.offset = multiply(blocks.scale, broadcast(-float(CODEBOOK_OFFSET<Block>)));
    load_words<4>(first + offsetof(Block, qs), stride, pairs);
    for (int i = 0; i < 4; i++) {
        blocks.quants[i] = look_up(CODEBOOK<Block>.quants, pairs[i] & NIBBLES);
        blocks.quants[i + 4] = look_up(CODEBOOK<Block>.quants, pairs[i] >> 4 & NIBBLES);
    }
}

// A block of each row of a panel. Rows lie `stride` bytes apart.
template <typename Block>
KERNEL inline void unpack(const char * first, int64_t stride, WeightBlocks & blocks) {
    if constexpr (IS_Q8_0<Block>) {
        unpack_q8_0(first, stride, blocks);
    } else if constexpr (HAS_CODEBOOK<Block>) {
        unpack_codes<Block>(first, stride, blocks);
    } else {
        unpack_nibbles<Block>(first, stride, blocks);
    }
}

// Whether the L1 cache holds panels that are multiplied together and, as far as they are prefetched, the next; otherwise
// they push each other out of it. What several are unpacked into takes its part.
inline bool fit_into_l1(int panels, int64_t stride) {
    return panels * PANEL_ROWS * stride <= (panels == 1 ? 12 : 8) * 1024;
}

// Prefetches a block of each row of the panel that follows `panels` further on in memory. The processor cannot do that by
// itself, since it does not track as many streams as a panel has rows.
template <typename Block>
KERNEL inline void prefetch_next_block(const char * panel, int panels, int64_t stride, int64_t block) {
    const char * next = panel + PANEL_ROWS * (panels * stride + block * int64_t(sizeof(Block)));
    for (size_t offset = 0; offset < PANEL_ROWS * sizeof(Block); offset += 64) {
        if (fit_into_l1(panels, stride)) {
            __builtin_prefetch(next + offset, 0, 3);
        } else {
            __builtin_prefetch(next + offset, 0, 2);
        }
    }
}

// Adds to `sum` the products of a block of each row with that of a token; `dots` are those of their quants. With
// weight = scale * quant + offset:
// sum(weight * activation) = scale * activation scale * dot product of quants + offset * scaled sum.
template <typename Weights, typename Activations>
KERNEL inline Floats add_block(const Weights & weights, Floats dots, const Activations & activations, Floats sum) {
    const Floats scale = multiply(weights.scale, broadcast(activations.scale));
    return multiply_add(weights.offset, broadcast(activations.scaled_sum),
                        multiply_add(scale, dots, sum));
}

// For at most BLOCK_TOKENS_BY_ROWS tokens, with AVX-512 (avx512_block_rows.h), if panels do not fit into L1: sets results[t][r]
// to the product of row r, from row `row` up to `end`, with token t.
template <typename Block>
KERNEL void multiply_by_rows(const Matrix & matrix, int64_t row, int64_t end,
                             const ActivationBlock * activations, int64_t tokens, float * const * results);

// The same as below for many tokens, with AMX (amx_blocks.h).
template <typename Block>
KERNEL void multiply_panel_in_tiles(const char * panel, int64_t stride, int64_t blocks,
                                    const ActivationBlock * activations, int64_t tokens, Floats * sums);

// Adds to sums[p][t] the products of a block of each row of panel p with that of token t of a tile, with AVX2
// (avx2_weights.h).
template <typename Block, int PANELS>
KERNEL void multiply_block_of_panels(const WeightBlocksOf<Block> (&weights)[PANELS],
                                     const ActivationBlockOf<Block> * activations, int64_t tokens,
                                     Floats (*sums)[TILE_TOKENS]);

// Adds to sums[p][t] the products of panel p with token t of a tile; a row of the panel is in each lane.
// `activations` holds the tile block by block, and within a block token by token.
template <typename Block, int PANELS>
KERNEL void multiply_panels(const char * panel, int64_t stride, int64_t blocks,
                            const ActivationBlockOf<Block> * activations, int64_t tokens,
                            Floats (*sums)[TILE_TOKENS]) {
    if constexpr (HAS_TILES) {
        if (are_many(tokens)) {
            multiply_panel_in_tiles<Block>(panel, stride, blocks, activations, tokens, sums[0]);
            return;
        }
    }
    for (int64_t block = 0; block < blocks; block++, activations += tokens) {
        if constexpr (PANELS == 1) {
            prefetch_next_block<Block>(panel, PANELS, stride, block);
            WeightBlocksOf<Block> weights;
            unpack<Block>(panel + block * sizeof(Block), stride, weights);
            for (int64_t token = 0; token < tokens; token++) {
                const Floats dots = dot_products<Block>(weights, activations[token].quants);
                sums[0][token] = add_block(weights, dots, activations[token], sums[0][token]);
            }
        } else {
            WeightBlocksOf<Block> weights[PANELS];
            for (int p = 0; p < PANELS; p++) {
                const char * rows = panel + p * PANEL_ROWS * stride;
                prefetch_next_block<Block>(rows, PANELS, stride, block);
                unpack<Block>(rows + block * sizeof(Block), stride, weights[p]);
            }
            multiply_block_of_panels<Block, PANELS>(weights, activations, tokens, sums);
        }
    }
}

KERNEL inline void quantize(const float * numbers, ActivationBlock & block) {
    const float largest = absmax(numbers);
    const int32_t sum = quantize_to_int8(numbers, inverse_scale_for(largest), block.quants);
    block.scale = largest / 127;
    block.scaled_sum = block.scale * sum;
}

}  // namespace
