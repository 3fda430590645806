/* Formats of quantized weights in super-blocks of 256: Q2_K to Q6_K and IQ4_XS (ggml-common.h).
 *
 * A super-block has a scale in half precision, and sub-blocks of 16 or 32 quants have scales of 4 to 8 bits:
 * weight = scale * sub-block scale * (quant - OFFSET), or
 * weight = scale * sub-block scale * quant - minimum * sub-block minimum.
 */
#pragma once

#include "blocks.h"

namespace {

constexpr int64_t SUPER_BLOCK_SIZE = QK_K;

// What the kernels must know of a format. Quants are unsigned and at most LARGEST_QUANT, unless they come from a
// codebook without an OFFSET.
template <typename Block>
struct Format {
    static constexpr int SUB_BLOCK_SIZE = 0;  // not a format in super-blocks
};

template <>
struct Format<block_q2_K> {
    static constexpr int SUB_BLOCK_SIZE = 16, LARGEST_QUANT = 3, OFFSET = 0;
    static constexpr bool HAS_MINIMUM = true, HAS_CODEBOOK = false;
};

template <>
struct Format<block_q3_K> {
    static constexpr int SUB_BLOCK_SIZE = 16, LARGEST_QUANT = 7, OFFSET = 4;
    static constexpr bool HAS_MINIMUM = false, HAS_CODEBOOK = false;
};

template <>
struct Format<block_q4_K> {
    static constexpr int SUB_BLOCK_SIZE = 32, LARGEST_QUANT = 15, OFFSET = 0;
    static constexpr bool HAS_MINIMUM = true, HAS_CODEBOOK = false;
};

template <>
struct Format<block_q5_K> {
    static constexpr int SUB_BLOCK_SIZE = 32, LARGEST_QUANT = 31, OFFSET = 0;
    static constexpr bool HAS_MINIMUM = true, HAS_CODEBOOK = false;
};

template <>
struct Format<block_q6_K> {
    static constexpr int SUB_BLOCK_SIZE = 16, LARGEST_QUANT = 63, OFFSET = 32;
    static constexpr bool HAS_MINIMUM = false, HAS_CODEBOOK = false;
};

template <>
struct Format<block_iq4_xs> {
    static constexpr int SUB_BLOCK_SIZE = 32, LARGEST_QUANT = 127 + IQ4_OFFSET, OFFSET = IQ4_OFFSET;
    static constexpr bool HAS_MINIMUM = false, HAS_CODEBOOK = true;
};

template <typename Block>
constexpr bool IS_SUPER_BLOCK = Format<Block>::SUB_BLOCK_SIZE > 0;

// Whether dot products start from the sums of activations, so that quants count from an offset.
template <typename Block>
constexpr bool HAS_OFFSET = Format<Block>::OFFSET > 0;

template <typename Block>
constexpr int SUB_BLOCKS = SUPER_BLOCK_SIZE / Format<Block>::SUB_BLOCK_SIZE;

template <typename Block>
constexpr int SUB_BLOCK_WORDS = Format<Block>::SUB_BLOCK_SIZE / (IS_WIDE<Block> ? 2 : 4);

template <typename Block>
constexpr int SUPER_BLOCK_WORDS = SUB_BLOCKS<Block> * SUB_BLOCK_WORDS<Block>;

// A super-block of as many rows as a register has lanes, a row in each lane.
template <typename Block>
struct SuperBlocks {
    // Four neighbouring quants are the bytes of a word. load_quants() says which words a register has; words that are
    // neighbours get the same operations. Wide quants are in the order of widen(), sub-block by sub-block.
    Words quants[SUPER_BLOCK_WORDS<Block>];
    SubBlockScale scales[SUB_BLOCKS<Block>];
    Words minimums[SUB_BLOCKS<Block> / 2];  // those of two sub-blocks in a word; only of formats with them
    Floats scale, minimum;
};

// Shifts to the left, or to the right if `bits` is negative.
KERNEL inline Words shift(Words words, int bits) { return bits < 0 ? words >> -bits : words << bits; }

// Byte `index` of the words of each row.
KERNEL inline SignedWords byte(const Words * words, int index) {
    return SignedWords(words[index / 4] >> 8 * (index % 4) & 0xff);
}

// Bytes 2 * index and 2 * index + 1 of the words of each row, 16 bits for each.
KERNEL inline Words two_bytes(const Words * words, int index) {
    const Words two = words[index / 2] >> 16 * (index % 2);
    return (two & 0xff) | (two & 0xff00) << 8;
}

// Parts in which the super-blocks that a panel has beside each other are prefetched: a format calls prefetch_part() for
// each while it unpacks, so that few lines are waited for at a time.
template <typename Block>
constexpr int PREFETCHED_PARTS = (sizeof(Block) + 63) / 64;

// Prefetches a part of as many super-blocks as a panel has rows, from `next` on, in the order in which they lie in memory:
// the processor does not track as many streams as a panel has rows. They go to the L2 cache, since the L1 cache may not
// hold them until they are needed. (On an AMD EPYC of the Zen 4 generation a single token takes half of the time.)
template <typename Block>
KERNEL inline void prefetch_part(const char * next, int part) {
    constexpr int BYTES = LANES * sizeof(Block) / PREFETCHED_PARTS<Block> + 63;
    constexpr int LINES = BYTES / 64;
    for (int line = 0; line < LINES; line++) {
        __builtin_prefetch(next + (part * LINES + line) * 64, 0, 2);
    }
}

// Q4_K and Q5_K begin with the scale, the minimum, and 12 bytes with 6 bits for each of 8 scales and 8
// minimums. Those of sub-blocks 0 to 3 lie in the lower bits of the first eight bytes; the upper bits of
// the same bytes belong to sub-blocks 4 to 7.
template <typename Block>
KERNEL inline void unpack_scales_and_minimums(const char * first, int64_t stride, const char * next,
                                              SuperBlocks<Block> & blocks) {
    prefetch_part<Block>(next, 0);
    Words words[4];
    load_words<4>(first, stride, words);
    blocks.scale = half_to_float(words[0]);
    blocks.minimum = half_to_float(words[0] >> 16);
    const Words scales[2] = {words[1] & in_every_byte(63),
                             (words[3] & NIBBLES) | (words[1] >> 2 & in_every_byte(0x30))};
    const Words minimums[2] = {words[2] & in_every_byte(63),
                               (words[3] >> 4 & NIBBLES) | (words[2] >> 2 & in_every_byte(0x30))};
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) {
        blocks.scales[i] = sub_block_scale(byte(scales, i));
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        blocks.minimums[i] = two_bytes(minimums, i);
    }
}

// Each 32 bytes have the quants of one sub-block in their lower halves and those of the next one in their
// upper halves.
KERNEL inline void unpack(const char * first, int64_t stride, const char * next,
                          SuperBlocks<block_q4_K> & blocks) {
    unpack_scales_and_minimums(first, stride, next, blocks);
    for (int pair = 0; pair < 4; pair++) {
        if (pair % 2 == 0) {
            prefetch_part<block_q4_K>(next, pair / 2 + 1);
        }
        Words words[8];
        load_quants(first + offsetof(block_q4_K, qs) + 32 * pair, stride, words);
        for (int i = 0; i < 8; i++) {
            blocks.quants[16 * pair + i] = words[i] & NIBBLES;
            blocks.quants[16 * pair + i + 8] = words[i] >> 4 & NIBBLES;
        }
    }
}

// As Q4_K. Bit i of the 32 bytes of `qh` are the fifth bits of sub-block i.
KERNEL inline void unpack(const char * first, int64_t stride, const char * next,
                          SuperBlocks<block_q5_K> & blocks) {
    unpack_scales_and_minimums(first, stride, next, blocks);
    const uint32_t fifth_bit = in_every_byte(16);
    Words fifth_bits[8];
    load_quants(first + offsetof(block_q5_K, qh), stride, fifth_bits);
#pragma GCC unroll 4
    for (int pair = 0; pair < 4; pair++) {
        if (pair % 2 == 0) {
            prefetch_part<block_q5_K>(next, pair / 2 + 1);
        }
        Words words[8];
        load_quants(first + offsetof(block_q5_K, qs) + 32 * pair, stride, words);
        for (int i = 0; i < 8; i++) {
            const Words lower = shift(fifth_bits[i], 4 - 2 * pair) & fifth_bit;
            const Words upper = shift(fifth_bits[i], 3 - 2 * pair) & fifth_bit;
            blocks.quants[16 * pair + i] = (words[i] & NIBBLES) | lower;
            blocks.quants[16 * pair + i + 8] = (words[i] >> 4 & NIBBLES) | upper;
        }
    }
}

// Each half of 128 quants has four groups of 32. Their lower four bits are the lower halves of 64 bytes of
// `ql`, then the upper halves of the same bytes; their upper two bits are bits 0-1, 2-3, 4-5 and 6-7 of 32
// bytes of `qh`.
KERNEL inline void unpack(const char * first, int64_t stride, const char * next,
                          SuperBlocks<block_q6_K> & blocks) {
    for (int half = 0; half < 2; half++) {
        const char * lower = first + offsetof(block_q6_K, ql) + 64 * half;
        Words words[16], upper_bits[8];
        prefetch_part<block_q6_K>(next, 2 * half);
        load_quants(lower, stride, words);
        load_quants(lower + 32, stride, words + 8);
        prefetch_part<block_q6_K>(next, 2 * half + 1);
        load_quants(first + offsetof(block_q6_K, qh) + 32 * half, stride, upper_bits);
#pragma GCC unroll 4
        for (int group = 0; group < 4; group++) {
            for (int i = 0; i < 8; i++) {
                const Words lower_bits = words[group % 2 * 8 + i] >> group / 2 * 4;
                const Words upper = shift(upper_bits[i], 4 - 2 * group) & in_every_byte(0x30);
                blocks.quants[32 * half + 8 * group + i] = (lower_bits & NIBBLES) | upper;
            }
        }
    }
    Words scales[4];
    load_words<4>(first + offsetof(block_q6_K, scales), stride, scales);
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++) {
        blocks.scales[i] = sub_block_scale(SignedWords(scales[i / 4] << (24 - 8 * (i % 4))) >> 24);
    }
    // The scale is the block's last two bytes; nothing after them is read.
    Words last;
    load_words<1>(first + sizeof(block_q6_K) - sizeof(uint32_t), stride, &last);
    blocks.scale = half_to_float(last >> 16);
}

// 16 bytes with a scale in their lower halves and a minimum in their upper ones; two bits for each quant, those
// of four groups of 32 in the same 32 bytes; the scale and the minimum of the super-block.
KERNEL inline void unpack(const char * first, int64_t stride, const char * next,
                          SuperBlocks<block_q2_K> & blocks) {
    prefetch_part<block_q2_K>(next, 0);
    Words packed[4], scales[4], minimums[4], last;
    load_words<4>(first + offsetof(block_q2_K, scales), stride, packed);
    for (int i = 0; i < 4; i++) {
        scales[i] = packed[i] & NIBBLES;
        minimums[i] = packed[i] >> 4 & NIBBLES;
    }
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++) {
        blocks.scales[i] = sub_block_scale(byte(scales, i));
    }
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) {
        blocks.minimums[i] = two_bytes(minimums, i);
    }
    for (int half = 0; half < 2; half++) {
        Words words[8];
        load_quants(first + offsetof(block_q2_K, qs) + 32 * half, stride, words);
#pragma GCC unroll 4
        for (int group = 0; group < 4; group++) {
            for (int i = 0; i < 8; i++) {
                blocks.quants[32 * half + 8 * group + i] =
                    words[i] >> 2 * group & in_every_byte(3);
            }
        }
    }
    prefetch_part<block_q2_K>(next, 1);
    load_words<1>(first + sizeof(block_q2_K) - sizeof(uint32_t), stride, &last);
    blocks.scale = half_to_float(last);
    blocks.minimum = half_to_float(last >> 16);
}

// The third bits of all quants: bit i of 32 bytes belongs to group i of 32 quants. The lower two bits as in
// Q2_K. 12 bytes with 16 scales: the lower four bits of eight, those of eight more, and upper two bits.
KERNEL inline void unpack(const char * first, int64_t stride, const char * next,
                          SuperBlocks<block_q3_K> & blocks) {
    prefetch_part<block_q3_K>(next, 0);
    Words third_bits[8];
    load_quants(first + offsetof(block_q3_K, hmask), stride, third_bits);
#pragma GCC unroll 2
    for (int half = 0; half < 2; half++) {
        Words words[8];
        load_quants(first + offsetof(block_q3_K, qs) + 32 * half, stride, words);
#pragma GCC unroll 4
        for (int group = 0; group < 4; group++) {
            for (int i = 0; i < 8; i++) {
                const Words third = shift(third_bits[i], 2 - 4 * half - group) & in_every_byte(4);
                blocks.quants[32 * half + 8 * group + i] =
                    (words[i] >> 2 * group & in_every_byte(3)) | third;
            }
        }
    }
    prefetch_part<block_q3_K>(next, 1);
    Words words[4], last;
    load_words<4>(first + offsetof(block_q3_K, scales) - sizeof(uint32_t), stride, words);
    const Words lower = words[1], higher = words[2], upper = words[3];
    const Words scales[4] = {(lower & NIBBLES) | (upper << 4 & in_every_byte(0x30)),
                             (higher & NIBBLES) | (upper << 2 & in_every_byte(0x30)),
                             (lower >> 4 & NIBBLES) | (upper & in_every_byte(0x30)),
                             (higher >> 4 & NIBBLES) | (upper >> 2 & in_every_byte(0x30))};
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++) {
        blocks.scales[i] = sub_block_scale(byte(scales, i) - 32);
    }
    load_words<1>(first + sizeof(block_q3_K) - sizeof(uint32_t), stride, &last);
    blocks.scale = half_to_float(last >> 16);
}

// The scale; two upper bits for the scale of each sub-block; four lower bits for each; for each sub-block, 16
// bytes with the codes of quants i and i + 16.
KERNEL inline void unpack(const char * first, int64_t stride, const char * next,
                          SuperBlocks<block_iq4_xs> & blocks) {
    prefetch_part<block_iq4_xs>(next, 0);
    Words head[4];
    load_words<4>(first, stride, head);
    blocks.scale = half_to_float(head[0]);
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) {
        const Words lower = head[1] >> 4 * i & 15, upper = head[0] >> (16 + 2 * i) & 3;
        blocks.scales[i] = sub_block_scale(SignedWords(lower | upper << 4) - 32);
    }
    for (int pair = 0; pair < 4; pair++) {
        if (pair % 2 == 0) {
            prefetch_part<block_iq4_xs>(next, pair / 2 + 1);
        }
        Words words[8];
        load_quants(first + offsetof(block_iq4_xs, qs) + 32 * pair, stride, words);
        Words unpacked[IS_WIDE<block_iq4_xs> ? 16 : 1];
        Words * stored = blocks.quants + 2 * SUB_BLOCK_WORDS<block_iq4_xs> * pair;
        Words * quants = IS_WIDE<block_iq4_xs> ? unpacked : stored;
        for (int i = 0; i < 8; i++) {
            Words * first_of_four = quants + i / 4 * 8 + i % 4;
            first_of_four[0] = look_up(CODEBOOK<block_iq4_xs>.quants, words[i] & NIBBLES);
            first_of_four[4] = look_up(CODEBOOK<block_iq4_xs>.quants, words[i] >> 4 & NIBBLES);
        }
        store_signed_quants(unpacked, stored);
    }
}

}  // namespace
