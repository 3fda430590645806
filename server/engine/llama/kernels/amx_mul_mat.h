/* Products of super-blocks with activations of many tokens, in tiles of AMX.
 *
 * The scale of a sub-block is multiplied into its quants, so that one product of tiles adds those of several sub-blocks.
 * Such weights have up to 14 bits: tiles multiply the lower byte of each, unsigned, and the upper one, signed. All sums of
 * a super-block are exact, also those for few tokens, which are left to VNNI.
 */
#pragma once

#include "amx_tiles.h"
#include "mul_mat_super_blocks.h"

namespace {

constexpr int TILE_WORDS = 16;  // that a product of tiles multiplies; four bytes in each

// Tiles 0 to 3 have sums: those of the lower and of the upper bytes of one panel, and of another. Tile 4 has activations,
// a token in each row, and tiles 5 and 6 weights.
constexpr TileConfiguration CONFIGURATION = {
    1, 0, {}, {64, 64, 64, 64, 64, 64, 64}, {16, 16, 16, 16, 16, 16, 16}};

// A super-block of each row of a panel, as quants * scales of sub-blocks.
struct TileWeights {
    Words lower[SUPER_BLOCK_SIZE / 4], upper[SUPER_BLOCK_SIZE / 4];

    template <typename Block>
    KERNEL void set(const SuperBlocks<Block> & blocks) {
        // Products with one of two neighbouring quants: the scale of the other is 0.
        constexpr __mmask64 ODD_BYTES = 0xaaaaaaaaaaaaaaaa;
        for (int sub_block = 0; sub_block < SUB_BLOCKS<Block>; sub_block++) {
            const Words scale = Words(blocks.scales[sub_block]);
            const __m512i of_even = __m512i((scale & 0xff) * 0x10001);
            const __m512i of_odd = _mm512_slli_epi16(of_even, 8);
            const __m512i sixteen_bits = __m512i((scale & 0xffff) * 0x10001);
            const __m512i offset =
                _mm512_mullo_epi16(sixteen_bits, _mm512_set1_epi16(Format<Block>::OFFSET));
            const auto scaled = [&](Words quants, __m512i scales) KERNEL {
                const __m512i products = _mm512_maddubs_epi16(__m512i(quants), scales);
                return HAS_OFFSET<Block> ? _mm512_sub_epi16(products, offset) : products;
            };
#pragma GCC unroll 8
            for (int i = 0; i < SUB_BLOCK_WORDS<Block>; i++) {
                const int word = sub_block * SUB_BLOCK_WORDS<Block> + i;
                const __m512i a = scaled(blocks.quants[word], of_even);
                const __m512i b = scaled(blocks.quants[word], of_odd);
                lower[word] = Words(_mm512_mask_blend_epi8(ODD_BYTES, a, _mm512_slli_epi16(b, 8)));
                upper[word] = Words(_mm512_mask_blend_epi8(ODD_BYTES, _mm512_srli_epi16(a, 8), b));
            }
        }
    }
};

// Adds the products of a panel with the activations in tile 4 to its two tiles of sums.
template <int LOWER, int UPPER>
KERNEL inline void multiply_words(const TileWeights & weights, int word) {
    load_tile<5>(weights.lower + word, sizeof(Words));
    multiply_tiles<LOWER, 4, 5>();
    load_tile<6>(weights.upper + word, sizeof(Words));
    multiply_signed_tiles<UPPER, 4, 6>();
}

// Adds to sums[p][t] the products of a super-block of each row of panel p with that of token t, of all tokens of a tile;
// at least TILE_ROWS.
template <typename Block, int PANELS>
KERNEL inline void multiply_in_tiles(const SuperBlocks<Block> (&weights)[PANELS],
                                     const SuperActivations<Block> * activations, int64_t tokens,
                                     Floats (*sums)[TILE_TOKENS]) {
    TileWeights tile_weights[PANELS];
    for (int p = 0; p < PANELS; p++) {
        tile_weights[p].set(weights[p]);
    }
    alignas(64) int32_t dots[2 * PANELS][TILE_ROWS][LANES];
    constexpr int64_t ROW = sizeof dots[0][0];
    const auto add_row = [&](int64_t first, int64_t row) KERNEL {
        const int64_t token = first + row;
        for (int p = 0; p < PANELS; p++) {
            const auto lower = SignedWords(_mm512_load_si512(dots[2 * p][row]));
            const auto upper = SignedWords(_mm512_load_si512(dots[2 * p + 1][row]));
            sums[p][token] =
                add_super_block(weights[p], lower + (upper << 8), activations[token], sums[p][token]);
        }
    };
    // While tiles multiply, the sums of the tokens before are added: `previous` is the first of these in the tile, which
    // begins with others if fewer than TILE_ROWS were left.
    int64_t previous = 0, new_row = 0, added = 0;
    for (int64_t done = 0; added < tokens;) {
        const bool multiplies = done < tokens;
        const int64_t token = std::min(done, tokens - TILE_ROWS);
        if (done > 0) {
            store_tile<0>(dots[0], ROW);
            store_tile<1>(dots[1], ROW);
            if constexpr (PANELS > 1) {
                store_tile<2>(dots[2], ROW);
                store_tile<3>(dots[3], ROW);
            }
        }
        zero_tile<0>();
        zero_tile<1>();
        zero_tile<2>();
        zero_tile<3>();
        for (int64_t part = 0; part < TILE_ROWS; part += 4) {
            if (multiplies) {
                const int word = TILE_WORDS / 4 * part;
                load_tile<4>(activations[token].quants + word, sizeof *activations);
                multiply_words<0, 1>(tile_weights[0], word);
                if constexpr (PANELS > 1) {
                    multiply_words<2, 3>(tile_weights[1], word);
                }
            }
            for (int64_t row = std::max(new_row, part); done > 0 && row < part + 4; row++) {
                add_row(previous, row);
            }
        }
        added = done;
        previous = token;
        new_row = done - token;
        done = token + TILE_ROWS;
    }
}

// See mul_mat_super_blocks.h.
template <typename Block, int PANELS>
KERNEL void multiply_panels_in_tiles(const char * panel, int64_t stride, int64_t blocks,
                                     const SuperActivations<Block> * activations, int64_t tokens,
                                     Floats (*sums)[TILE_TOKENS]) {
    const Tiles tiles(CONFIGURATION);
    for (int64_t block = 0; block < blocks; block++, activations += tokens) {
        SuperBlocks<Block> weights[PANELS];
        unpack_panels(panel, stride, block, weights);
        multiply_in_tiles(weights, activations, tokens, sums);
    }
}

}  // namespace
