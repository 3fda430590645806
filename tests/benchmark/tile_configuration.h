/* Makes _tile_loadconfig say that it reads the whole configuration of AMX's tiles. GCC 12's says 8 of its 64 bytes, so
 * that the compiler leaves the others out where a function writes them just before, as llama.cpp's does
 * (findings/gcc-amx-tile-configuration.sh). Included in every C++ source of llama-server (peer.py).
 */
#if defined(__AMX_TILE__) && defined(__GNUC__) && !defined(__clang__)
#include <immintrin.h>

static inline void load_tile_configuration(const void * configuration) {
    __asm__ volatile("ldtilecfg %0" : : "m"(*(const char(*)[64]) configuration));
}

#define _tile_loadconfig load_tile_configuration
#endif
