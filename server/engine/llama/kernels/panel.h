// How the kernels divide a product: panels of weights times tiles of tokens.
#pragma once

#include <cstdint>

namespace {

constexpr int64_t PANEL_ROWS = LANES;  // rows of weights, one in each lane
// The sums of a panel and a tile, a register for each token, are 4 KB with AVX-512 and stay in the L1 cache.
constexpr int64_t TILE_TOKENS = 64;

}  // namespace
