// Dot products of super-blocks with activations, in registers of NEON.
#pragma once

#include "neon_words.h"
#include "super_activations.h"

namespace {

// Adds to sums[0][t] the products of a super-block of each row of a panel with that of token t.
template <typename Block, int PANELS, int TOKENS>
KERNEL inline void multiply_tokens(const SuperBlocks<Block> * panels,
                                   const SuperActivations<Block> * activations,
                                   Floats * const * sums) {
    static_assert(PANELS == 1);
    const SuperBlocks<Block> & weights = panels[0];
    using F = Format<Block>;
    constexpr int WORDS = SUB_BLOCK_WORDS<Block>;
    constexpr bool HAS_OFFSET = F::OFFSET > 0 && !F::HAS_CODEBOOK;
    // All sums of a super-block fit into 32 bits.
    static_assert(int64_t(SUPER_BLOCK_SIZE) * 128 * 127 * 128 <= INT32_MAX);
    SignedWords products[TOKENS], minimums[TOKENS];
    for (int t = 0; t < TOKENS; t++) {
        products[t] = minimums[t] = 0;
    }
    for (int sub_block = 0; sub_block < SUB_BLOCKS<Block>; sub_block++) {
        SignedWords dots[TOKENS];
        for (int t = 0; t < TOKENS; t++) {
            dots[t] = HAS_OFFSET ? activations[t].sums[sub_block] : 0;
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
    for (int i = 0; F::HAS_MINIMUM && i < SUB_BLOCKS<Block> / 2; i++) {
        const SignedWords even = SignedWords(weights.minimums[i] & 0xffff);
        const SignedWords odd = SignedWords(weights.minimums[i] >> 16);
        for (int t = 0; t < TOKENS; t++) {
            const int32_t two = activations[t].sums[i];
            minimums[t] += even * int16_t(two) + odd * (two >> 16);
        }
    }
    for (int t = 0; t < TOKENS; t++) {
        Floats sum = multiply(to_floats(products[t]), weights.scale);
        if (F::HAS_MINIMUM) {
            sum = subtract_product(sum, to_floats(minimums[t]), weights.minimum);
        }
        sums[0][t] = multiply_add(sum, broadcast(activations[t].scale), sums[0][t]);
    }
}

}  // namespace
