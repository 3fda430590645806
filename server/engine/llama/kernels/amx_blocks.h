/* Products of blocks of 32 with activations of many tokens, in tiles of AMX.
 *
 * A product of tiles has the dot products of a block's quants for 16 rows and 16 tokens. They are exact, and what follows
 * is computed as for fewer tokens, whose dot products are left to VNNI.
 */
#pragma once

#include <algorithm>
#include <utility>

#include "amx_tiles.h"
#include "mul_mat_blocks.h"

namespace {

static_assert(MANY_TOKENS >= TILE_ROWS);

// Blocks of a panel that are unpacked before they are multiplied with all tokens: 10 KB, which stay in the L1 cache.
constexpr int64_t UNPACKED_BLOCKS = 16;

// Of two blocks that are multiplied together, tile i has dot products, tile 2 + i activations, a token in each row, and
// tile 4 + i weights.
constexpr TileConfiguration TILES_FOR_BLOCKS = {
    1, 0, {},
    {64, 64, BLOCK_SIZE, BLOCK_SIZE, 64, 64},
    {TILE_ROWS, TILE_ROWS, TILE_ROWS, TILE_ROWS, BLOCK_SIZE / 4, BLOCK_SIZE / 4}};

// Adds to sums[T] the products of blocks of a panel with those of token T of a tile. The activations of the next block
// lie `tokens` further on.
template <int64_t... T>
KERNEL void multiply_tile(const WeightBlocks * weights, int64_t blocks,
                          const ActivationBlock * activations, int64_t tokens, Floats * sums,
                          std::integer_sequence<int64_t, T...>) {
    alignas(64) int32_t dots[2][TILE_ROWS][LANES];
    Floats in_registers[] = {sums[T]...};  // since all their places are constants
    const auto multiply_block = [&](auto i, int64_t block) KERNEL {
        zero_tile<i>();
        load_tile<2 + i>(activations[block * tokens].quants, sizeof *activations);
        load_tile<4 + i>(weights[block].quants, sizeof(Words));
        multiply_tiles<i, 2 + i, 4 + i>();
    };
    const auto add = [&](int i, int64_t block) KERNEL __attribute__((always_inline)) {
        const WeightBlocks & of_block = weights[block];
        const ActivationBlock * of_tokens = activations + block * tokens;
        ((in_registers[T] =
              add_block(of_block, to_floats(SignedWords(_mm512_load_si512(dots[i][T]))), of_tokens[T],
                        in_registers[T])),
         ...);
    };
    constexpr std::integral_constant<int, 0> FIRST;
    constexpr std::integral_constant<int, 1> SECOND;
    // While tiles multiply, the products of the two blocks before are added.
    for (int64_t block = 0; block < blocks + 2; block += 2) {
        const bool has_first = block < blocks, has_second = block + 1 < blocks;
        if (has_first) {
            multiply_block(FIRST, block);
        }
        if (has_second) {
            multiply_block(SECOND, block + 1);
        }
        if (block > 0) {
            add(FIRST, block - 2);
        }
        if (block > 0 && block - 1 < blocks) {
            add(SECOND, block - 1);
        }
        if (has_first) {
            store_tile<FIRST>(dots[FIRST], sizeof dots[FIRST][0]);
        }
        if (has_second) {
            store_tile<SECOND>(dots[SECOND], sizeof dots[SECOND][0]);
        }
    }
    ((sums[T] = in_registers[T]), ...);
}

// See mul_mat_blocks.h.
template <typename Block>
KERNEL void multiply_panel_in_tiles(const char * panel, int64_t stride, int64_t blocks,
                                    const ActivationBlock * activations, int64_t tokens, Floats * sums) {
    const Tiles tiles(TILES_FOR_BLOCKS);
    for (int64_t first = 0; first < blocks; first += UNPACKED_BLOCKS) {
        const int64_t count = std::min(UNPACKED_BLOCKS, blocks - first);
        WeightBlocks weights[UNPACKED_BLOCKS];
        for (int64_t block = 0; block < count; block++) {
            prefetch_next_block<Block>(panel, 1, stride, first + block);
            unpack<Block>(panel + (first + block) * sizeof(Block), stride, weights[block]);
        }
        for (int64_t token = 0; token < tokens; token += TILE_ROWS) {
            // The last tile begins with tokens that are done, if fewer are left.
            const int64_t done = std::max<int64_t>(token + TILE_ROWS - tokens, 0), begin = token - done;
            Floats tile_sums[TILE_ROWS];
            std::copy_n(sums + begin, TILE_ROWS, tile_sums);
            multiply_tile(weights, count, activations + first * tokens + begin, tokens, tile_sums,
                          std::make_integer_sequence<int64_t, TILE_ROWS>());
            std::copy_n(tile_sums + done, TILE_ROWS - done, sums + token);
        }
    }
}

}  // namespace
