// Products of super-blocks with activations by matrix products of bytes: one instruction multiplies eight quants of
// each of two rows with those of two tokens.
#pragma once

#include <algorithm>

#include "neon_i8mm_quants.h"
#include "neon_super_sums.h"

namespace {

// Numbers of 8 rows and two tokens. A register has those of two rows: of the first row with the first token, then with
// the second one, and of the second row likewise.
struct PairSums {
    int32x4_t rows[4];

    // Those of token 0 or 1, a row in each lane.
    KERNEL SignedWords of_token(int token) const {
        return token == 0 ? SignedWords(vuzp1q_s32(rows[0], rows[1]), vuzp1q_s32(rows[2], rows[3]))
                          : SignedWords(vuzp2q_s32(rows[0], rows[1]), vuzp2q_s32(rows[2], rows[3]));
    }
};

// Adds the products of eight quants of each row, with eight of each token.
KERNEL inline void add_matrix_products(PairSums & sums, const Words quants[2], int8x16_t tokens) {
    sums.rows[0] = vmmlaq_s32(sums.rows[0], vreinterpretq_s8_u32(quants[0].lower), tokens);
    sums.rows[1] = vmmlaq_s32(sums.rows[1], vreinterpretq_s8_u32(quants[0].upper), tokens);
    sums.rows[2] = vmmlaq_s32(sums.rows[2], vreinterpretq_s8_u32(quants[1].lower), tokens);
    sums.rows[3] = vmmlaq_s32(sums.rows[3], vreinterpretq_s8_u32(quants[1].upper), tokens);
}

// Adds to `products` the sums of a sub-block times the scale of each row.
KERNEL inline void add_scaled(PairSums & products, const PairSums & dots, SignedWords scales) {
    const int32x4_t of_rows[4] = {
        vzip1q_s32(scales.lower, scales.lower), vzip2q_s32(scales.lower, scales.lower),
        vzip1q_s32(scales.upper, scales.upper), vzip2q_s32(scales.upper, scales.upper)};
    for (int i = 0; i < 4; i++) {
        products.rows[i] = vmlaq_s32(products.rows[i], dots.rows[i], of_rows[i]);
    }
}

// Adds to sums[0][t] the products of a super-block of each row of a panel with that of token t. A token without another one
// is multiplied twice: as many instructions as dot products take.
template <typename Block, int PANELS, int TOKENS>
KERNEL inline void multiply_tokens(const SuperBlocks<Block> * panels,
                                   const SuperActivations<Block> * activations,
                                   Floats * const * sums) {
    static_assert(PANELS == 1);
    const SuperBlocks<Block> & weights = panels[0];
    constexpr int WORDS = SUB_BLOCK_WORDS<Block>, PAIRS = (TOKENS + 1) / 2;
    constexpr auto second_of = [](int pair) { return std::min(2 * pair + 1, TOKENS - 1); };
    PairSums products[PAIRS] = {};
    for (int sub_block = 0; sub_block < SUB_BLOCKS<Block>; sub_block++) {
        PairSums dots[PAIRS] = {};
        for (int p = 0; HAS_OFFSET<Block> && p < PAIRS; p++) {
            const int32_t first = activations[2 * p].sums[sub_block];
            const int32_t second = activations[second_of(p)].sums[sub_block];
            std::fill_n(dots[p].rows, 4, int32x4_t{first, second, first, second});
        }
#pragma GCC unroll 2
        for (int four = 0; four < WORDS; four += 4) {
            const int word = sub_block * WORDS + four;
            for (int p = 0; p < PAIRS; p++) {
                const int64x2_t first =
                    vreinterpretq_s64_s32(vld1q_s32(activations[2 * p].quants + word));
                const int64x2_t second =
                    vreinterpretq_s64_s32(vld1q_s32(activations[second_of(p)].quants + word));
                const Words * quants = weights.quants + word;
                add_matrix_products(dots[p], quants,
                                    vreinterpretq_s8_s64(vzip1q_s64(first, second)));
                add_matrix_products(dots[p], quants + 2,
                                    vreinterpretq_s8_s64(vzip2q_s64(first, second)));
            }
        }
        for (int p = 0; p < PAIRS; p++) {
            add_scaled(products[p], dots[p], weights.scales[sub_block]);
        }
    }
    SignedWords of_tokens[TOKENS];
    for (int t = 0; t < TOKENS; t++) {
        of_tokens[t] = products[t / 2].of_token(t % 2);
    }
    add_to_sums<Block, TOKENS>(weights, activations, of_tokens, sums[0]);
}

}  // namespace
