// Blocks of weights, unpacked word by word into 8 lanes: AVX2 and NEON. Included after the vector operations and
// words of an instruction set.
#pragma once

#include <cstddef>

#include "blocks.h"

namespace {

// block_q8_0 in memory: the scale; 32 signed quants.
KERNEL inline void unpack_q8_0(const char * first, int64_t stride, WeightBlocks & blocks) {
    Words scales;
    load_words<1>(first, stride, &scales);
    blocks.scale = half_to_float(scales);
    blocks.offset = broadcast(0.f);
    load_words<8>(first + offsetof(block_q8_0, qs), stride, blocks.quants);
}

// The other formats in memory: the scale; the minimum, if any; the fifth bits of all quants, if any; the
// lower four bits, those of quants i and i + 16 in one byte.
template <typename Block>
KERNEL inline void unpack_nibbles(const char * first, int64_t stride, WeightBlocks & blocks) {
    Words scales, pairs[4];
    load_words<1>(first, stride, &scales);
    blocks.scale = half_to_float(scales);
    if (HAS_MINIMUM<Block>) {
        blocks.offset = half_to_float(scales >> 16);
    } else {
        blocks.offset = multiply(blocks.scale, broadcast(HAS_FIFTH_BITS<Block> ? -16.f : -8.f));
    }
    load_words<4>(first + offsetof(Block, qs), stride, pairs);
    for (int i = 0; i < 4; i++) {
        blocks.quants[i] = pairs[i] & NIBBLES;
        blocks.quants[i + 4] = pairs[i] >> 4 & NIBBLES;
    }
    if constexpr (HAS_FIFTH_BITS<Block>) {
        Words fifth_bits;
        load_words<1>(first + offsetof(Block, qh), stride, &fifth_bits);
        add_fifth_bits(fifth_bits, blocks.quants);
    }
}

}  // namespace
