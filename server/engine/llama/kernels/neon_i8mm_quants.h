// Reads the quants of super-blocks for matrix products of bytes.
#pragma once

#include "neon_words.h"

namespace {

// Reads words 2i and 2i + 1 of two rows: first those of one row, then those of the other.
KERNEL inline void pair_rows(const char * row, int64_t stride, uint32x4_t pairs[2]) {
    const uint64x2_t a = vreinterpretq_u64_u8(vld1q_u8(reinterpret_cast<const uint8_t *>(row)));
    const uint64x2_t b =
        vreinterpretq_u64_u8(vld1q_u8(reinterpret_cast<const uint8_t *>(row + stride)));
    pairs[0] = vreinterpretq_u32_u64(vzip1q_u64(a, b));
    pairs[1] = vreinterpretq_u32_u64(vzip2q_u64(a, b));
}

// Reads 32 bytes of each row. words[2i] and words[2i + 1] become words 2i and 2i + 1 of rows 0 to 3 and of rows 4 to 7,
// row by row: a register has eight bytes of each of two rows, as the instruction takes them.
KERNEL inline void load_quants(const char * first, int64_t stride, Words words[8]) {
    for (int start = 0; start < 8; start += 4, first += 16, words += 4) {
        uint32x4_t pairs[4][2];  // of rows 0 and 1, 2 and 3, 4 and 5, 6 and 7
        for (int i = 0; i < 4; i++) {
            pair_rows(first + 2 * i * stride, stride, pairs[i]);
        }
        for (int i = 0; i < 2; i++) {
            words[2 * i] = {pairs[0][i], pairs[1][i]};
            words[2 * i + 1] = {pairs[2][i], pairs[3][i]};
        }
    }
}

}  // namespace
