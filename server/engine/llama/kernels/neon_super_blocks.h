// Dot products of super-blocks with activations, in registers of NEON.
#pragma once

#include "neon_quants.h"
#include "neon_super_sums.h"

namespace {

// Adds to sums[0][t] the products of a super-block of each row of a panel with that of token t.
template <typename Block, int PANELS, int TOKENS>
KERNEL inline void multiply_tokens(const SuperBlocks<Block> * panels,
                                   const SuperActivations<Block> * activations,
                                   Floats * const * sums) {
    static_assert(PANELS == 1);
    const SuperBlocks<Block> & weights = panels[0];
    constexpr int WORDS = SUB_BLOCK_WORDS<Block>;
    SignedWords products[TOKENS];
    for (int t = 0; t < TOKENS; t++) {
        products[t] = 0;
    }
    for (int sub_block = 0; sub_block < SUB_BLOCKS<Block>; sub_block++) {
        SignedWords dots[TOKENS];
        for (int t = 0; t < TOKENS; t++) {
            dots[t] = HAS_OFFSET<Block> ? activations[t].sums[sub_block] : 0;
        }
#pragma GCC unroll 2
        for (int four = 0; four < WORDS; four += 4) {
            const int first = sub_block * WORDS + four;
            int32x4_t others[TOKENS];
            for (int t = 0; t < TOKENS; t++) {
                others[t] = vld1q_s32(activations[t].quants + first);
            }
            for_each_of_four([&](auto i) KERNEL {
                for (int t = 0; t < TOKENS; t++) {
                    dots[t] = add_products<i>(dots[t], weights.quants[first + i], others[t]);
                }
            });
        }
        for (int t = 0; t < TOKENS; t++) {
            products[t] += dots[t] * weights.scales[sub_block];
        }
    }
    add_to_sums<Block, TOKENS>(weights, activations, products, sums[0]);
}

}  // namespace
