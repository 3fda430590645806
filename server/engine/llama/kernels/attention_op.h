// Flash attention as llama.cpp asks for it, and its division into query tiles.
#pragma once

#include <cmath>
#include <cstring>

#include "attention_sums.h"
#include "kv_cells.h"

namespace {

// So many rows that see a tile of cells repay storing its numbers: transposed keys, and the values of several tiles.
constexpr int MANY_ROWS = 8;

struct FlashAttention {
    const ggml_tensor *queries, *keys, *values, *mask, *sinks;
    int64_t tokens, cells, kv_heads, heads, gqa_group, value_dim;
    int64_t tile_tokens, tiles;
    float scale, largest_bias, soft_cap;

    explicit FlashAttention(const ggml_tensor * op)
        : queries(op->src[0]), keys(op->src[1]), values(op->src[2]), mask(op->src[3]),
          sinks(op->src[4]) {
        tokens = queries->ne[1];
        cells = keys->ne[1];
        kv_heads = keys->ne[2];
        heads = queries->ne[2];
        gqa_group = heads / kv_heads;
        value_dim = values->ne[0];
        tile_tokens = std::clamp<int64_t>(QUERY_TILE_ROWS / gqa_group, 1, tokens);
        tiles = (tokens + tile_tokens - 1) / tile_tokens;
        float parameters[3];
        memcpy(parameters, op->op_params, sizeof parameters);
        scale = parameters[0];
        largest_bias = parameters[1];
        soft_cap = parameters[2];
    }

    int64_t tile_rows() const { return tile_tokens * gqa_group; }

    // At most: each token has its own tiles of gathered cells, and one that is not full.
    int64_t max_cell_tiles() const { return tile_tokens * (cells / KV_TILE + 1); }

    const ggml_fp16_t * mask_of(int64_t token) const {
        return reinterpret_cast<const ggml_fp16_t *>(static_cast<const char *>(mask->data) +
                                                     token * mask->nb[1]);
    }

    const float * query(int64_t token, int64_t head) const {
        return reinterpret_cast<const float *>(static_cast<const char *>(queries->data) +
                                               token * queries->nb[1] + head * queries->nb[2]);
    }

    // The factor of a head for the mask: Press et al., "Train Short, Test Long", arXiv:2108.12409 (ALiBi), as
    // llama.cpp extends it to numbers of heads that are no powers of two.
    float slope(int64_t head) const {
        if (largest_bias == 0) {
            return 1;
        }
        const int64_t power = int64_t(1) << int(std::floor(std::log2(float(heads))));
        return head < power ? std::exp2(-largest_bias / power * (head + 1))
                            : std::exp2(-largest_bias / 2 / power * (2 * (head - power) + 1));
    }

    static bool supports(const ggml_tensor * op) {
        const ggml_tensor *queries = op->src[0], *keys = op->src[1], *values = op->src[2];
        const ggml_tensor *mask = op->src[3], *sinks = op->src[4];
        const bool mask_supported = mask != nullptr && mask->type == GGML_TYPE_F16 &&
                                    mask->ne[0] >= keys->ne[1] && mask->ne[1] >= queries->ne[1] &&
                                    mask->ne[2] == 1 && mask->ne[3] == 1;
        const bool queries_supported = queries->type == GGML_TYPE_F32 &&
                                       queries->nb[0] == sizeof(float) && queries->ne[3] == 1 &&
                                       queries->ne[2] / keys->ne[2] <= QUERY_TILE_ROWS;
        const bool cells_supported = supports_cells(keys) && supports_cells(values) &&
                                     values->ne[1] == keys->ne[1] && values->ne[2] == keys->ne[2];
        return mask_supported && queries_supported && cells_supported &&
               (sinks == nullptr || sinks->type == GGML_TYPE_F32);
    }
};

// The cells that the tokens of a query tile see. Cells that lie together, all of which a token sees, form a tile for
// all such tokens. The others are gathered, for each token alone, until they fill a tile: as when sequences
// grow side by side.
class VisibleCells {
  public:
    const CellTile * begin() const { return tiles; }
    int64_t count = 0;
    int64_t rows = 0;  // of scores, one for each token of each tile

    // `memory` has room for FlashAttention::max_cell_tiles().
    explicit VisibleCells(CellTile * memory) : tiles(memory) {}

    KERNEL void find(const FlashAttention & op, int64_t first_token, int64_t tokens) {
        count = rows = 0;
        Gathered gathered[QUERY_TILE_ROWS];
        for (int64_t i = 0; i < tokens; i++) {
            gathered[i].count = 0;
        }
        for (int64_t cell = 0; cell < op.cells; cell += KV_TILE) {
            uint64_t full = 0;
            bool is_plain = true;
            for (int64_t i = 0; i < tokens; i++) {
                unsigned visible = visible_from(op, first_token + i, cell);
                if (visible == (1u << KV_TILE) - 1) {
                    full |= uint64_t(1) << i;
                    is_plain = is_plain && not_equal(op.mask_of(first_token + i) + cell, 0) == 0;
                    continue;
                }
                for (; visible != 0; visible &= visible - 1) {
                    gathered[i].cells[gathered[i].count++] = cell + __builtin_ctz(visible);
                    if (gathered[i].count == KV_TILE) {
                        append(gathered[i].cells, KV_TILE, uint64_t(1) << i);
                        gathered[i].count = 0;
                    }
                }
            }
            if (full != 0) {
                int32_t cells[KV_TILE];
                for (int i = 0; i < KV_TILE; i++) {
                    cells[i] = cell + i;
                }
                append(cells, KV_TILE, full, is_plain);
            }
        }
        for (int64_t i = 0; i < tokens; i++) {
            if (gathered[i].count > 0) {
                append(gathered[i].cells, gathered[i].count, uint64_t(1) << i);
            }
        }
    }

  private:
    struct Gathered {
        int32_t cells[KV_TILE];
        int32_t count;
    };

    CellTile * tiles;

    // Which cells a token sees of the KV_TILE ones from `cell` on; there may be fewer.
    KERNEL static unsigned visible_from(const FlashAttention & op, int64_t token, int64_t cell) {
        const ggml_fp16_t * mask = op.mask_of(token) + cell;
        if (cell + KV_TILE <= op.cells) {
            return not_equal(mask, MASKED);
        }
        ggml_fp16_t of_cells[KV_TILE];
        std::fill(std::copy_n(mask, op.cells - cell, of_cells), of_cells + KV_TILE, MASKED);
        return not_equal(of_cells, MASKED);
    }

    // Tokens that see the same cells, such as those of a text that is read in both directions, follow each other.
    void append(const int32_t * cells, int32_t in_use, uint64_t tokens, bool is_plain = false) {
        if (count > 0 && tiles[count - 1].count == in_use &&
            std::equal(cells, cells + in_use, tiles[count - 1].cells)) {
            tiles[count - 1].tokens |= tokens;
            tiles[count - 1].is_plain &= is_plain;
            rows += __builtin_popcountll(tokens);
            return;
        }
        CellTile & tile = tiles[count++];
        std::copy_n(cells, in_use, tile.cells);
        std::fill(tile.cells + in_use, tile.cells + KV_TILE, cells[0]);
        tile.count = in_use;
        tile.first_row = rows;
        tile.tokens = tokens;
        tile.is_plain = is_plain;
        rows += __builtin_popcountll(tokens);
    }
};

}  // namespace
