/* The dot products of queries with keys, by tiles of bytes.
 *
 * Keys are integers of two bytes, in units of 2^-15 of a power of two above the largest number of their cell, and queries are
 * integers of three bytes, in units of 2^-22 of a power of two above their largest number. Tiles multiply bytes and add the
 * products as integers, which is exact: the same for one query and for many. Products of two lowest bytes are left out; each
 * is less than 2^-20 of the product of the largest numbers.
 */
#pragma once

#include "amx_cells.h"
#include "amx_tiles.h"
#include "attention_op.h"
#include "avx512_words.h"

namespace {

// Those of the queries of a query tile with keys of some KV heads.
class QueryProducts {
  public:
    // `memory` has room for memory_size().
    QueryProducts(const FlashAttention & op, char * memory)
        : op(op), key_dim(op.keys->ne[0]), steps(steps_of(op)), blocks(blocks_of(op)),
          queries(reinterpret_cast<QueryBytes *>(memory)), tiles(ALL_TILES) {}

    static size_t memory_size(const FlashAttention & op, int64_t kv_heads) {
        return kv_heads * blocks_of(op) * (steps_of(op) * sizeof(QueryBytes) + LANES * sizeof(float));
    }

    // Takes the queries of some tokens and KV heads.
    KERNEL void set_queries(int64_t first_token, int64_t tokens, int64_t first_kv_head, int64_t kv_heads) {
        units = reinterpret_cast<float *>(queries + kv_heads * blocks * steps);
        const int64_t rows = tokens * op.gqa_group;
        for (int64_t kv_head = 0; kv_head < kv_heads; kv_head++) {
            for (int64_t block = 0; block * LANES < rows; block++) {
                QueryBytes * bytes = queries_of(kv_head, block);
                std::fill_n(bytes, steps, QueryBytes());
                for (int64_t i = 0; i < std::min(LANES, rows - block * LANES); i++) {
                    const int64_t row = block * LANES + i;
                    const int64_t head = (first_kv_head + kv_head) * op.gqa_group + row % op.gqa_group;
                    units_of(kv_head)[row] = set_query(op.query(first_token + row / op.gqa_group, head), bytes, i);
                }
                for (int64_t step = 0; step < steps; step++) {
                    transpose(bytes[step].high);
                    transpose(bytes[step].middle);
                    transpose(bytes[step].low);
                }
            }
        }
    }

    // Reads the keys of a tile of cells, of the KV head that is `kv_head` after the first. Brings those of the next tile into
    // the cache.
    KERNEL void read(const HeadCells & cells, int64_t kv_head, const CellTile & tile, const CellTile & next) {
        convert(cells, tile, next);
        row_units = units_of(kv_head);
        const int64_t first = __builtin_ctzll(tile.tokens) * op.gqa_group;
        const int64_t end = (64 - __builtin_clzll(tile.tokens)) * op.gqa_group;
        for (int64_t block = first / LANES; block * LANES < end; block++) {
            multiply_block(queries_of(kv_head, block));
            const int64_t first_row = std::max(block * LANES, first / 4 * 4);
            for (int64_t row = first_row; row < std::min(end, (block + 1) * LANES); row += 4) {
                add_levels(row % LANES, products + row);
            }
        }
    }

    // The products of a query with the keys read last, a key in each lane: of a token and a head, counted from the first ones
    // that were set and that read the KV head.
    KERNEL Floats of_row(int64_t token, int64_t head) const {
        const int64_t row = token * op.gqa_group + head;
        return multiply(multiply(products[row], key_units), broadcast(row_units[row]));
    }

  private:
    static constexpr int64_t STEP = 64;  // numbers of a key that a row of a tile has
    static constexpr TileConfiguration ALL_TILES = {
        1, 0, {}, {64, 64, 64, 64, 64, 64, 64, 64}, {16, 16, 16, 16, 16, 16, 16, 16}};

    // A step of 16 keys, one in each row. Bytes 2 i and 2 i + 1 are those of numbers i and i + 32.
    struct KeyBytes {
        Words high[LANES], low[LANES];  // signed and unsigned
    };

    // The same of 16 queries, transposed: a word of each in a row.
    struct QueryBytes {
        Words high[LANES], middle[LANES], low[LANES];  // signed, unsigned and signed
    };

    const FlashAttention & op;
    const int64_t key_dim, steps, blocks;
    QueryBytes * const queries;  // [kv_head][block][step]
    float * units;               // of queries: [kv_head][block][16]
    const float * row_units;     // of the KV head read last
    const Tiles tiles;
    KeyBytes keys[MAX_HEAD_DIM / STEP];
    Floats key_units;
    Words levels[3][LANES];  // sums of products of bytes, a key in each row: in 2^16, 2^8 and 1
    Floats products[QUERY_TILE_ROWS];
    static_assert(QUERY_TILE_ROWS % LANES == 0);

    static int64_t steps_of(const FlashAttention & op) { return (op.keys->ne[0] + STEP - 1) / STEP; }

    static int64_t blocks_of(const FlashAttention & op) {
        return (op.tile_rows() + LANES - 1) / LANES;
    }

    QueryBytes * queries_of(int64_t kv_head, int64_t block) const {
        return queries + (kv_head * blocks + block) * steps;
    }

    float * units_of(int64_t kv_head) const { return units + kv_head * blocks * LANES; }

    // Sets a row of `bytes`. Gives back the unit of its products: 2^8 times that of the query.
    KERNEL float set_query(const float * query, QueryBytes * bytes, int64_t row) const {
        Words largest{};
        for (int64_t d = 0; d < key_dim; d += LANES) {
            const Words magnitudes = Words(load_unaligned(query + d)) & 0x7fffffff;
            largest = Words(_mm512_max_epu32(__m512i(largest), __m512i(magnitudes)));
        }
        const int exponent = int(_mm512_reduce_max_epu32(__m512i(largest)) >> 23) - 126;
        const Floats shift = broadcast(float(22 - exponent));
        const auto integers = [&](int64_t d) KERNEL {
            const Floats numbers = d < key_dim ? load_unaligned(query + d) : broadcast(0.f);
            return SignedWords(_mm512_cvtps_epi32(_mm512_scalef_ps(numbers, shift)));
        };
        for (int64_t d = 0; d < key_dim; d += LANES) {
            if (d % STEP < STEP / 2) {
                set_bytes(integers(d), integers(d + STEP / 2), bytes[d / STEP], row, d % STEP / LANES);
            }
        }
        return exponent == 129 ? NAN : std::ldexp(1.f, exponent - 22 + 8);
    }

    // Sets half of a row.
    KERNEL static void set_bytes(SignedWords first, SignedWords last, QueryBytes & bytes, int64_t row, int64_t half) {
        const auto set = [&](Words & target, SignedWords even, SignedWords odd) KERNEL {
            const __m512i both = __m512i((even & 0xff) | (odd & 0xff) << 8);
            _mm256_store_si256(reinterpret_cast<__m256i *>(&target) + half, _mm512_cvtepi32_epi16(both));
        };
        // The lowest byte is signed.
        const SignedWords upper_first = (first + 0x80) >> 8, upper_last = (last + 0x80) >> 8;
        set(bytes.low[row], first, last);
        set(bytes.middle[row], upper_first, upper_last);
        set(bytes.high[row], upper_first >> 8, upper_last >> 8);
    }

    KERNEL void convert(const HeadCells & cells, const CellTile & tile, const CellTile & next) {
        cells.with_numbers(tile, [&](const auto * const * numbers) KERNEL {
            using Number = std::remove_cv_t<std::remove_reference_t<decltype(**numbers)>>;
            // Of half precision, where 2^(exponent - 14) is larger than the number.
            const __m256i biased = _mm256_srli_epi16(largest_of_cells(numbers, key_dim), 10);
            const __m256i exponents = _mm256_max_epi16(biased, _mm256_set1_epi16(1));
            const __m256i bits = _mm256_sub_epi16(_mm256_set1_epi16(15 + 14), exponents);
            alignas(32) uint16_t factors[KV_TILE];
            if (_mm256_cmpgt_epi16_mask(bits, _mm256_set1_epi16(15)) == 0) {
                // Powers of two in half precision.
                const __m256i powers = _mm256_slli_epi16(_mm256_add_epi16(bits, _mm256_set1_epi16(15)), 10);
                _mm256_store_si256(reinterpret_cast<__m256i *>(factors), powers);
                for (int64_t cell = 0; cell < KV_TILE; cell++) {
                    cells.prefetch(next.cells[cell]);
                    convert(numbers[cell], cell, Factor{all_lanes(factors[cell])});
                }
            } else {
                const __m256i halves = _mm256_castph_si256(_mm256_cvtepi16_ph(bits));
                _mm256_store_si256(reinterpret_cast<__m256i *>(factors), halves);
                for (int64_t cell = 0; cell < KV_TILE; cell++) {
                    convert(numbers[cell], cell, LargeFactor{all_lanes(factors[cell])});
                }
            }
            set_units(exponents, SCALE_BITS<Number>);
            return 0;
        });
    }

    KERNEL static __m512h all_lanes(uint16_t half) { return _mm512_castsi512_ph(_mm512_set1_epi16(int16_t(half))); }

    // The key of a cell.
    template <typename Number, typename AnyFactor>
    KERNEL void convert(const Number * numbers, int64_t cell, AnyFactor factor) {
        constexpr int64_t STRIDE = std::is_same_v<Number, ggml_fp16_t> ? STEP / 2 : 1;
        int64_t step = 0;
        for (; step < key_dim / STEP; step++, numbers += 2 * STRIDE) {
            const __m512i first = load_integers<true>(numbers, factor);
            set_bytes(first, load_integers<true>(numbers + STRIDE, factor), keys[step], cell);
        }
        const int64_t rest = key_dim % STEP;
        if (rest == STEP / 4) {
            set_bytes(load_integers<false>(numbers, factor), _mm512_setzero_si512(), keys[step], cell);
        } else if (rest == STEP / 2) {
            set_bytes(load_integers<true>(numbers, factor), _mm512_setzero_si512(), keys[step], cell);
        } else if (rest != 0) {
            const __m512i first = load_integers<true>(numbers, factor);
            set_bytes(first, load_integers<false>(numbers + STRIDE, factor), keys[step], cell);
        }
    }

    KERNEL static void set_bytes(__m512i first, __m512i last, KeyBytes & bytes, int64_t row) {
        constexpr __mmask64 ODD = 0xaaaaaaaaaaaaaaaa;
        bytes.high[row] = Words(_mm512_mask_blend_epi8(ODD, _mm512_srli_epi16(first, 8), last));
        bytes.low[row] = Words(_mm512_mask_blend_epi8(ODD, first, _mm512_slli_epi16(last, 8)));
    }

    // The units of keys: 2^-15 of the powers of two above their numbers.
    KERNEL void set_units(__m256i exponents, int scale_bits) {
        const __m512i biased = _mm512_add_epi32(_mm512_cvtepu16_epi32(exponents),
                                                _mm512_set1_epi32(127 - 14 - 15 + scale_bits));
        const __mmask16 infinite = _mm256_cmpeq_epi16_mask(exponents, _mm256_set1_epi16(31));
        key_units = _mm512_mask_mov_ps(_mm512_castsi512_ps(_mm512_slli_epi32(biased, 23)), infinite, broadcast(NAN));
    }

    // The keys, in rows, times a block of queries.
    KERNEL void multiply_block(const QueryBytes * block) {
        constexpr int HIGH_KEYS = 3, LOW_KEYS = 4, HIGH = 5, MIDDLE = 6, LOW = 7;
        zero_tile<0>();
        zero_tile<1>();
        zero_tile<2>();
        for (int64_t step = 0; step < steps; step++) {
            load_tile<HIGH_KEYS>(keys[step].high, sizeof(Words));
            load_tile<HIGH>(block[step].high, sizeof(Words));
            multiply_signed_tiles<0, HIGH_KEYS, HIGH>();
            load_tile<LOW_KEYS>(keys[step].low, sizeof(Words));
            multiply_unsigned_with_signed_tiles<1, LOW_KEYS, HIGH>();
            load_tile<MIDDLE>(block[step].middle, sizeof(Words));
            multiply_unsigned_tiles<2, LOW_KEYS, MIDDLE>();
            multiply_tiles<1, HIGH_KEYS, MIDDLE>();
            load_tile<LOW>(block[step].low, sizeof(Words));
            multiply_signed_tiles<2, HIGH_KEYS, LOW>();
        }
        store_tile<0>(levels[0], sizeof(Words));
        store_tile<1>(levels[1], sizeof(Words));
        store_tile<2>(levels[2], sizeof(Words));
    }

    // The sums of the levels of four queries of a block, from `first` on, transposed.
    KERNEL void add_levels(int64_t first, Floats sums[4]) const {
        __m512 of_keys[4];
        for (int i = 0; i < 4; i++) {  // of keys i, i + 4, i + 8 and i + 12
            const auto numbers = [&](const Words * level) KERNEL {
                const auto of_key = [&](int key) KERNEL {
                    const int32_t * queries = reinterpret_cast<const int32_t *>(level + key) + first;
                    return _mm_load_si128(reinterpret_cast<const __m128i *>(queries));
                };
                __m512i four = _mm512_castsi128_si512(of_key(i));
                four = _mm512_inserti32x4(four, of_key(i + 4), 1);
                four = _mm512_inserti32x4(four, of_key(i + 8), 2);
                return _mm512_cvtepi32_ps(_mm512_inserti32x4(four, of_key(i + 12), 3));
            };
            const Floats lower = multiply_add(numbers(levels[1]), broadcast(0x1p8f), numbers(levels[2]));
            of_keys[i] = multiply_add(numbers(levels[0]), broadcast(0x1p16f), lower);
        }
        const auto pairs = [](__m512 a, __m512 b) KERNEL { return _mm512_castps_pd(_mm512_unpacklo_ps(a, b)); };
        const auto upper = [](__m512 a, __m512 b) KERNEL { return _mm512_castps_pd(_mm512_unpackhi_ps(a, b)); };
        const __m512d a = pairs(of_keys[0], of_keys[1]), b = pairs(of_keys[2], of_keys[3]);
        const __m512d c = upper(of_keys[0], of_keys[1]), d = upper(of_keys[2], of_keys[3]);
        sums[0] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, b));
        sums[1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, b));
        sums[2] = _mm512_castpd_ps(_mm512_unpacklo_pd(c, d));
        sums[3] = _mm512_castpd_ps(_mm512_unpackhi_pd(c, d));
    }
};

}  // namespace
