// Multiplies weights in super-blocks of 256 with activations. Included after the vector operations of an
// instruction set.
#pragma once

#include <type_traits>

#include "super_activations.h"

namespace {

// Unpacks super-block `block` of each row of neighbouring panels, and prefetches as much of those that follow.
template <typename Block, int PANELS>
KERNEL inline void unpack_panels(const char * panel, int64_t stride, int64_t block,
                                 SuperBlocks<Block> (&weights)[PANELS]) {
    for (int p = 0; p < PANELS; p++) {
        const char * rows = panel + p * PANEL_ROWS * stride;
        const char * next = rows + PANELS * PANEL_ROWS * stride;
        unpack(rows + block * sizeof(Block), stride, next + block * PANEL_ROWS * sizeof(Block), weights[p]);
    }
}

// The same as below for many tokens, with AMX (amx_mul_mat.h).
template <typename Block, int PANELS>
KERNEL void multiply_panels_in_tiles(const char * panel, int64_t stride, int64_t blocks,
                                     const SuperActivations<Block> * activations, int64_t tokens,
                                     Floats (*sums)[TILE_TOKENS]);

// At most so many tokens are multiplied with super-blocks row by row.
template <typename Block>
constexpr int MOST_SUPER_TOKENS_BY_ROWS = HAS_CODEBOOK<Block> ? CODEBOOK_TOKENS_BY_ROWS : SUPER_TOKENS_BY_ROWS;

// For these (x86_rows.h): sets results[t][r] to the product of row r, from row
// `row` up to `end`, with token t.
template <typename Block>
KERNEL void multiply_by_rows(const Matrix & matrix, int64_t row, int64_t end,
                             const SuperActivations<Block> * activations, int64_t tokens,
                             float * const * results);

// Adds to sums[p][t] the products of panel p with token t of a tile; a row of the panel is in each lane.
// `activations` holds the tile block by block, and within a block token by token.
template <typename Block, int PANELS>
KERNEL void multiply_panels(const char * panel, int64_t stride, int64_t blocks,
                            const SuperActivations<Block> * activations, int64_t tokens,
                            Floats (*sums)[TILE_TOKENS]) {
    if constexpr (HAS_TILES) {
        if (are_many(tokens)) {
            multiply_panels_in_tiles<Block, PANELS>(panel, stride, blocks, activations, tokens, sums);
            return;
        }
    }
    for (int64_t block = 0; block < blocks; block++, activations += tokens) {
        SuperBlocks<Block> weights[PANELS];
        unpack_panels(panel, stride, block, weights);
        for (int64_t token = 0; token < tokens; token += TOKENS_TOGETHER) {
            Floats * columns[PANELS];
            for (int p = 0; p < PANELS; p++) {
                columns[p] = sums[p] + token;
            }
            with_count<TOKENS_TOGETHER>(tokens - token, [&](auto count) KERNEL {
                multiply_tokens<Block, PANELS, count>(weights, activations + token, columns);
            });
        }
    }
}

}  // namespace
