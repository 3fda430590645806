// What becomes of the sums of integer products of super-blocks.
#pragma once

#include "neon_words.h"
#include "super_activations.h"

namespace {

// All sums of a super-block fit into 32 bits.
static_assert(int64_t(SUPER_BLOCK_SIZE) * 128 * 127 * 128 <= INT32_MAX);

// Adds to sums[t] the products of a super-block of each row with that of token t; products[t] are those of quants
// and scales of sub-blocks.
template <typename Block, int TOKENS>
KERNEL inline void add_to_sums(const SuperBlocks<Block> & weights,
                               const SuperActivations<Block> * activations,
                               const SignedWords products[TOKENS], Floats * sums) {
    constexpr bool HAS_MINIMUM = Format<Block>::HAS_MINIMUM;
    SignedWords minimums[TOKENS];
    for (int t = 0; t < TOKENS; t++) {
        minimums[t] = 0;
    }
    for (int i = 0; HAS_MINIMUM && i < SUB_BLOCKS<Block> / 2; i++) {
        const SignedWords even = SignedWords(weights.minimums[i] & 0xffff);
        const SignedWords odd = SignedWords(weights.minimums[i] >> 16);
        for (int t = 0; t < TOKENS; t++) {
            const int32_t two = activations[t].sums[i];
            minimums[t] += even * int16_t(two) + odd * (two >> 16);
        }
    }
    for (int t = 0; t < TOKENS; t++) {
        Floats sum = multiply(to_floats(products[t]), weights.scale);
        if (HAS_MINIMUM) {
            sum = subtract_product(sum, to_floats(minimums[t]), weights.minimum);
        }
        sums[t] = multiply_add(sum, broadcast(activations[t].scale), sums[t]);
    }
}

}  // namespace
