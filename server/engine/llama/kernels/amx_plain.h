/* Multiplies weights that are plain numbers, by tiles of AMX. Included after the vector operations of AVX-512.
 *
 * Tiles multiply numbers in bfloat16, of 8 significant bits, and add in single precision. A number is the sum of a few
 * of these pieces: one for bfloat16, two for half precision, three for single precision. Products of pieces that
 * are less than 2^-24 of the whole one are left out. They are added in an order that depends on nothing but the
 * number of columns, and for one token in the same way as for many.
 */
#pragma once

#include <algorithm>
#include <optional>

#include "amx_tiles.h"
#include "avx512_words.h"
#include "panel.h"

namespace {

constexpr int PLAIN_NUMBERS = 32, PAIRS = PLAIN_NUMBERS / 2;  // a pair is a word of a tile
constexpr int PLAIN_PANELS = 2;                               // that are multiplied together
constexpr int64_t PLAIN_TILE_TOKENS = 256, GROUP_TOKENS = 16;  // a group's activations fill tiles of AMX
constexpr int64_t GROUPS_OF_A_TILE = PLAIN_TILE_TOKENS / GROUP_TOKENS;
constexpr int MAX_PIECES = 3;
constexpr int64_t PLACED_TOGETHER = GROUP_TOKENS;  // rows of activations
constexpr int64_t PLAIN_TOKENS_BY_ROWS = 0;

}  // namespace

#include "plain_weights.h"

namespace {

// Memory for the activations of a token for one block of weights. Those of a group lie together:
// [block][piece][pair][token], as tiles take them.
struct alignas(64) PlainActivations {
    uint32_t pairs[MAX_PIECES][PAIRS];
};

// The upper halves of 32 floats, which are numbers in bfloat16: those of lanes i of both are pair i.
KERNEL inline __m512i upper_halves(Floats lower, Floats upper) {
    return __m512i(Words(lower) >> 16 | (Words(upper) & 0xffff0000));
}

// What is left of a number without its upper half.
KERNEL inline Floats rest(Floats a) {
    return subtract(a, Floats(Words(a) & 0xffff0000));
}

// Calls `take` with each piece of 32 numbers, the largest first, in pairs of lanes i of both.
template <int PIECES, typename Take>
KERNEL inline void split_numbers(Floats lower, Floats upper, Take take) {
    for (int piece = 0; piece < PIECES; piece++) {
        take(piece, upper_halves(lower, upper));
        if (piece + 1 < PIECES) {
            lower = rest(lower);
            upper = rest(upper);
        }
    }
}

// How many pieces weights have.
template <typename Block>
constexpr int PIECES = std::is_same_v<Block, BrainBlock> ? 1 : std::is_same_v<Block, HalfBlock> ? 2 : 3;

// Weights in bfloat16 lie in pairs of neighbours; the numbers of others are paired as it takes the least time.
template <typename Block>
constexpr bool NEIGHBOURS = PIECES<Block> == 1;

// Where number `i` of a block lies among the first numbers of pairs, or, from PAIRS on, among the second ones.
template <typename Block>
constexpr int place_in_pairs(int i) {
    return NEIGHBOURS<Block> ? i / 2 + i % 2 * PAIRS : i;
}

// Puts the activations of a whole group into their place.
template <typename Block>
KERNEL inline void place_group(const float * const * numbers, int64_t blocks, PlainActivations * activations) {
    for (int64_t block = 0; block < blocks; block++) {
        Words columns[PLAIN_NUMBERS];  // a token in each lane
        for (int half = 0; half < PLAIN_NUMBERS; half += LANES) {
            for (int64_t i = 0; i < GROUP_TOKENS; i++) {
                columns[half + i] = Words(load_unaligned(numbers[i] + block * PLAIN_NUMBERS + half));
            }
            transpose(columns + half);
        }
        Floats pairs[PLAIN_NUMBERS];
        for (int i = 0; i < PLAIN_NUMBERS; i++) {
            pairs[place_in_pairs<Block>(i)] = Floats(columns[i]);
        }
        auto * pieces = reinterpret_cast<Words *>(activations + block * GROUP_TOKENS);
        for (int pair = 0; pair < PAIRS; pair++) {
            split_numbers<MAX_PIECES>(
                pairs[pair], pairs[pair + PAIRS],
                [&](int piece, __m512i halves) KERNEL { pieces[piece * PAIRS + pair] = Words(halves); });
        }
    }
}

// Puts a row of activations into its place in a group of `width` rows.
template <typename Block>
KERNEL inline void place_row(const float * numbers, int64_t row, int64_t width, int64_t blocks,
                             PlainActivations * activations) {
    auto * pairs = reinterpret_cast<uint32_t *>(activations) + row;
    const __m512i places = _mm512_mullo_epi32(
        _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15),
        _mm512_set1_epi32(int(width)));
    for (int64_t block = 0; block < blocks; block++, numbers += PLAIN_NUMBERS) {
        Floats first = load_unaligned(numbers), second = load_unaligned(numbers + LANES);
        if constexpr (NEIGHBOURS<Block>) {
            const __m512i even =
                _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
            const __m512i odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
            const Floats lower = first;
            first = _mm512_permutex2var_ps(lower, even, second);
            second = _mm512_permutex2var_ps(lower, odd, second);
        }
        split_numbers<MAX_PIECES>(first, second, [&](int, __m512i piece) KERNEL {
            _mm512_i32scatter_epi32(pairs, places, piece, sizeof(uint32_t));
            pairs += PAIRS * width;
        });
    }
}

// Puts `count` rows of activations, from row `first` of all `rows` on, into their places.
template <typename Block>
KERNEL inline void place_plain(const float * const * numbers, int64_t first, int64_t count, int64_t rows,
                               int64_t blocks, PlainActivations * activations) {
    if (count == GROUP_TOKENS) {
        place_group<Block>(numbers, blocks, activations + first * blocks);
        return;
    }
    for (int64_t i = 0; i < count; i++) {
        const int64_t place = (first + i) % GROUP_TOKENS, group = first + i - place;
        place_row<Block>(numbers[i], place, std::min(GROUP_TOKENS, rows - group), blocks,
                         activations + group * blocks);
    }
}

// So many blocks of a row are kept in pieces, for tokens that are multiplied after the first ones.
constexpr int64_t MAX_BLOCKS = 4;

// Columns of a panel: numbers in bfloat16 where they lie, others in pieces, block b in place of block b - MAX_BLOCKS.
template <typename Block>
struct PanelColumns {
    const char * weights;
    int64_t stride, ahead;  // rows that are prefetched meanwhile lie `ahead` bytes further on
    alignas(64) uint16_t pieces[MAX_BLOCKS][PIECES<Block>][PANEL_ROWS][PLAIN_NUMBERS];

    // Splits a block of each row.
    KERNEL inline void split(int64_t block) {
        const char * first = weights + block * int64_t(sizeof(Block));
#pragma GCC unroll 4
        for (int64_t row = 0; row < PANEL_ROWS; row++, first += stride) {
            __builtin_prefetch(first + ahead, 0, 2);
            if (sizeof(Block) > 64) {
                __builtin_prefetch(first + ahead + 64, 0, 2);
            }
            if constexpr (PIECES<Block> > 1) {
                const auto & numbers = reinterpret_cast<const Block *>(first)->numbers;
                split_numbers<PIECES<Block>>(
                    load_numbers(numbers), load_numbers(numbers + LANES),
                    [&](int piece, __m512i halves) KERNEL {
                        _mm512_store_si512(pieces[block % MAX_BLOCKS][piece][row], halves);
                    });
            }
        }
    }

    template <int TILE>
    KERNEL inline void load(int64_t block, int piece) const {
        if constexpr (PIECES<Block> == 1) {
            load_tile<TILE>(weights + block * 64, stride);
        } else {
            load_tile<TILE>(pieces[block % MAX_BLOCKS][piece], 64);
        }
    }
};

// Products of a panel and a group of tokens, in single precision: a row of the panel in each register.
struct Dots {
    Words rows[PANEL_ROWS];
};

// Tiles: sums of panel p and group g are in SUMS + 2 * p + g, weights in WEIGHTS + p, activations in INPUTS + g.
constexpr int SUMS = 0, WEIGHTS = 4, INPUTS = 6;

// The tiles for groups of `width` tokens.
inline TileConfiguration tiles_of_width(int64_t width) {
    TileConfiguration tiles{1, 0, {}, {}, {}};
    for (int tile = 0; tile < 8; tile++) {
        const bool weights = tile == WEIGHTS || tile == WEIGHTS + 1;
        tiles.rows[tile] = GROUP_TOKENS;
        tiles.row_bytes[tile] = weights ? 64 : 4 * width;
    }
    return tiles;
}

template <int COUNT, typename Act>
KERNEL inline void repeat(Act act) {
    if constexpr (COUNT > 0) {
        repeat<COUNT - 1>(act);
        act(std::integral_constant<int, COUNT - 1>());
    }
}

// The activations of GROUPS groups of `width` tokens, from group `first` of a tile on, for some columns.
template <int GROUPS>
struct GroupInputs {
    int64_t first, width;
    const char * pairs[GROUPS];
};

// Adds the products of blocks of panels and of groups to dots[panel][group], or begins these. The weights are split
// before, unless they are already.
template <typename Block, int PANELS, int GROUPS>
KERNEL inline void multiply_groups(PanelColumns<Block> (&panels)[PANELS], int64_t blocks, bool splits,
                                   const GroupInputs<GROUPS> & inputs, bool begins,
                                   Dots (*dots)[GROUPS_OF_A_TILE]) {
    constexpr int64_t ROW_BYTES = GROUP_TOKENS * sizeof(float);
    const int64_t row_bytes = inputs.width * sizeof(uint32_t);
    const auto each_sum = [&](auto act) KERNEL {
        repeat<PANELS>([&](auto p) KERNEL { repeat<GROUPS>([&](auto g) KERNEL { act(p, g); }); });
    };
    each_sum([&](auto p, auto g) KERNEL {
        if (begins) {
            zero_tile<SUMS + 2 * p + g>();
        } else {
            load_tile<SUMS + 2 * p + g>(dots[p][inputs.first + g].rows, ROW_BYTES);
        }
    });
    // Tiles are loaded from memory some time after it was written.
    constexpr int64_t BEFORE = 2;
    for (int64_t block = splits ? -BEFORE : 0; block < blocks; block++) {
        if (splits && block + BEFORE < blocks) {
            for (int p = 0; p < PANELS; p++) {
                panels[p].split(block + BEFORE);
            }
        }
        if (block < 0) {
            continue;
        }
        repeat<MAX_PIECES>([&](auto piece) KERNEL {
            repeat<GROUPS>([&](auto g) KERNEL {
                const int64_t rows = (block * MAX_PIECES + piece) * PAIRS;
                load_tile<INPUTS + g>(inputs.pairs[g] + rows * row_bytes, row_bytes);
            });
            repeat<std::min(PIECES<Block>, MAX_PIECES - piece)>([&](auto of_weights) KERNEL {
                repeat<PANELS>([&](auto p) KERNEL {
                    panels[p].template load<WEIGHTS + p>(block, of_weights);
                });
                each_sum([&](auto p, auto g) KERNEL {
                    multiply_brain_tiles<SUMS + 2 * p + g, WEIGHTS + p, INPUTS + g>();
                });
            });
        });
    }
    each_sum([&](auto p, auto g) KERNEL { store_tile<SUMS + 2 * p + g>(dots[p][inputs.first + g].rows, ROW_BYTES); });
}

// Adds to sums[p][t] the products of panel p with token t of a tile; a row of the panel is in each lane.
template <typename Block, int PANELS>
KERNEL void multiply_panels(const char * panel, int64_t stride, int64_t blocks,
                            const PlainActivations * activations, int64_t tokens,
                            Floats (*sums)[PLAIN_TILE_TOKENS]) {
    const int64_t panel_bytes = PANEL_ROWS * stride;
    PanelColumns<Block> panels[PANELS];
    Dots dots[PANELS][GROUPS_OF_A_TILE];
    std::optional<Tiles> tiles;
    int64_t tiles_width = 0;
    const bool once = tokens <= GROUP_TOKENS || tokens == 2 * GROUP_TOKENS;
    const int64_t together = once ? blocks : MAX_BLOCKS;
    for (int64_t first = 0; first < blocks; first += together) {
        for (int p = 0; p < PANELS; p++) {
            panels[p].weights = panel + p * panel_bytes + first * int64_t(sizeof(Block));
            panels[p].stride = stride;
            panels[p].ahead = PANELS * panel_bytes;
        }
        int64_t token = 0;
        const auto multiply_next = [&](int64_t width, auto count) KERNEL {
            if (width != tiles_width) {
                tiles.emplace(tiles_of_width(width));
                tiles_width = width;
            }
            GroupInputs<count> inputs{token / GROUP_TOKENS, width, {}};
            for (int64_t group = 0; group < count; group++, token += width) {
                inputs.pairs[group] =
                    reinterpret_cast<const char *>(activations + token * blocks + first * width);
            }
            multiply_groups(panels, std::min(together, blocks - first), inputs.first == 0, inputs,
                            first == 0, dots);
        };
        while (token + 2 * GROUP_TOKENS <= tokens) {
            multiply_next(GROUP_TOKENS, std::integral_constant<int, 2>());
        }
        while (token < tokens) {
            multiply_next(std::min(GROUP_TOKENS, tokens - token), std::integral_constant<int, 1>());
        }
    }
    for (int p = 0; p < PANELS; p++) {
        for (int64_t token = 0; token < tokens; token += GROUP_TOKENS) {
            Words * of_tokens = dots[p][token / GROUP_TOKENS].rows;
            transpose(of_tokens);
            for (int64_t i = 0; i < std::min(GROUP_TOKENS, tokens - token); i++) {
                sums[p][token + i] = add(sums[p][token + i], Floats(of_tokens[i]));
            }
        }
    }
}

}  // namespace
