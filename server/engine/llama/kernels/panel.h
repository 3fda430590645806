// How the kernels divide a product: panels of weights times tiles of tokens.
#pragma once

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
// The sums of a panel and a tile, a register for each token, are 6 KB with AVX-512 and stay in the L1 cache.
constexpr int64_t TILE_TOKENS = 96;
#endif
// Fewer tokens do not fill the rows of a tile of AMX, or repay storing the columns of plain numbers.
constexpr int64_t MANY_TOKENS = HAS_TILES ? 16 : 32;

inline bool are_many(int64_t tokens) { return tokens >= MANY_TOKENS; }

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
