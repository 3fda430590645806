// Activations, quantized to 8 bits for the multiplication with super-blocks of weights.
#pragma once

#include "panel.h"
#include "super_blocks.h"

namespace {

// 256 activations of a token: activation = scale * quant.
template <typename Block>
struct alignas(ACTIVATIONS_ALIGNMENT) SuperActivations {
    int32_t quants[SUPER_BLOCK_WORDS<Block>];  // four bytes in each, or two numbers of 16 bits
    // With minimums: the sums of the quants of two sub-blocks in each, 16 bits for one.
    // With an offset: what the dot product with each sub-block starts from.
    int32_t sums[SUB_BLOCKS<Block>];
    float scale;
};

template <typename Block>
KERNEL inline void quantize(const float * numbers, SuperActivations<Block> & block) {
    float largest = 0;
    for (int i = 0; i < SUPER_BLOCK_SIZE; i += BLOCK_SIZE) {
        const float absolute = absmax(numbers + i);
        largest = absolute > largest || absolute != absolute ? absolute : largest;
    }
    const float inverse_scale = inverse_scale_for(largest);
    block.scale = largest / 127;
    if constexpr (IS_WIDE<Block>) {
        quantize_wide(numbers, inverse_scale, block.quants);
        return;
    }
    for (int i = 0; i < SUPER_BLOCK_SIZE; i += BLOCK_SIZE) {
        quantize_to_int8(numbers + i, inverse_scale, block.quants + i / 4);
    }
    for (int i = 0; i < SUB_BLOCKS<Block>; i++) {
        int16_t lower_sum, upper_sum;
        add_quants<SUB_BLOCK_WORDS<Block>>(block.quants + i * SUB_BLOCK_WORDS<Block>, lower_sum,
                                           upper_sum);
        if (Format<Block>::HAS_MINIMUM) {
            const uint32_t sum = uint16_t(lower_sum + upper_sum);
            block.sums[i / 2] = i % 2 == 0 ? sum : block.sums[i / 2] | sum << 16;
        } else {
            block.sums[i] = start_of_dot_product(Format<Block>::OFFSET, lower_sum, upper_sum);
        }
    }
}

}  // namespace
