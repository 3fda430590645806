// Reads the quants of super-blocks for dot products of bytes.
#pragma once

#include "neon_words.h"

namespace {

// Reads 32 bytes of each row; lane r of words[i] becomes word i of row r.
KERNEL inline void load_quants(const char * first, int64_t stride, Words words[8]) {
    load_words<8>(first, stride, words);
}

}  // namespace
