// How the kernels divide a product: panels of weights times tiles of tokens.
#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>

namespace {

constexpr int64_t PANEL_ROWS = LANES;  // rows of weights, one in each lane

#if defined(KERNEL_TILES)
constexpr bool HAS_TILES = true;
// As many as llama.cpp computes at once by default: weights are unpacked and scaled once for all. More sums and activations
// than the L1 cache holds cost less.
constexpr int64_t TILE_TOKENS = 512;
#else
constexpr bool HAS_TILES = false;
// The sums of a panel and a tile, a register for each token, are 8 KB with AVX-512 and stay in the L1 cache.
constexpr int64_t TILE_TOKENS = 128;
#endif
// Fewer tokens do not fill the rows of a tile of AMX, or repay storing the columns of plain numbers.
constexpr int64_t MANY_TOKENS = HAS_TILES ? 16 : 32;

inline bool are_many(int64_t tokens) { return tokens >= MANY_TOKENS; }

// A matrix of weights, `blocks` in each row; rows lie `stride` bytes apart. The last panel ends with the last row,
// so it may have rows of the one before.
struct Matrix {
    const char * data;
    int64_t stride, rows, blocks;

    int64_t panels() const { return (rows + PANEL_ROWS - 1) / PANEL_ROWS; }

    int64_t first_row(int64_t panel) const {
        return std::min(panel * PANEL_ROWS, rows - PANEL_ROWS);
    }
};

// A row of a tile is read at once if it does not cross a cache line.
constexpr size_t ACTIVATIONS_ALIGNMENT = 64;

// Calls `act` with `count`, or with MOST if that is less, as a constant.
template <int MOST, typename Act>
KERNEL inline void with_count(int64_t count, Act act) {
    if constexpr (MOST > 1) {
        if (count < MOST) {
            return with_count<MOST - 1>(count, act);
        }
    }
    act(std::integral_constant<int, MOST>());
}

}  // namespace
