/* The tiles of AMX: eight registers, each of up to 16 rows of up to 64 bytes.
 *
 * A thread configures its tiles before it uses them, and releases them at the end of each operation: then Linux need not
 * save them when it switches threads, and no other code finds a configuration that it does not expect.
 *
 * These are assembler since GCC does not know what the instructions read: its _tile_loadconfig names 8 of 64 bytes, and
 * its _tile_loadd none, so that it may leave out what writes them.
 */
#pragma once

#include <cstdint>

namespace {

constexpr int64_t TILE_ROWS = 16;  // that a tile has at most

// What LDTILECFG reads.
struct alignas(64) TileConfiguration {
    uint8_t palette;  // 1
    uint8_t start_row;
    uint8_t reserved[14];
    uint16_t row_bytes[16];  // of tiles 0 to 7
    uint8_t rows[16];
};

// The calling thread's tiles, configured as long as this lives; their contents begin as zeros.
class Tiles {
  public:
    explicit Tiles(const TileConfiguration & configuration) {
        asm volatile("ldtilecfg %0" : : "m"(configuration));
    }
    ~Tiles() { asm volatile("tilerelease"); }

    Tiles(const Tiles &) = delete;
    Tiles & operator=(const Tiles &) = delete;
};

template <int TILE>
inline __attribute__((always_inline)) void zero_tile() {
    asm volatile("tilezero %%tmm%c0" : : "i"(TILE));
}

// Rows lie `stride` bytes apart.
template <int TILE>
inline __attribute__((always_inline)) void load_tile(const void * first, int64_t stride) {
    asm volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(first), "r"(stride), "i"(TILE) : "memory");
}

template <int TILE>
inline __attribute__((always_inline)) void store_tile(void * first, int64_t stride) {
    asm volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(first), "r"(stride), "i"(TILE) : "memory");
}

// Adds to SUMS[m][n], 32-bit integers, A[m][4k + i] * B[k][4n + i] for all k and for i = 0 to 3: signed bytes of A, and
// unsigned bytes of B.
template <int SUMS, int A, int B>
inline __attribute__((always_inline)) void multiply_tiles() {
    asm volatile("tdpbsud %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(SUMS), "i"(A), "i"(B));
}

// The same with signed bytes of B.
template <int SUMS, int A, int B>
inline __attribute__((always_inline)) void multiply_signed_tiles() {
    asm volatile("tdpbssd %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(SUMS), "i"(A), "i"(B));
}

// The same with unsigned bytes of both.
template <int SUMS, int A, int B>
inline __attribute__((always_inline)) void multiply_unsigned_tiles() {
    asm volatile("tdpbuud %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(SUMS), "i"(A), "i"(B));
}

// The same with unsigned bytes of A, and signed ones of B.
template <int SUMS, int A, int B>
inline __attribute__((always_inline)) void multiply_unsigned_with_signed_tiles() {
    asm volatile("tdpbusd %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(SUMS), "i"(A), "i"(B));
}

// Adds to SUMS[m][n], floats, A[m][2k + i] * B[k][2n + i] for all k and for i = 0 and 1; A and B in bfloat16.
template <int SUMS, int A, int B>
inline __attribute__((always_inline)) void multiply_brain_tiles() {
    asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(SUMS), "i"(A), "i"(B));
}

}  // namespace
