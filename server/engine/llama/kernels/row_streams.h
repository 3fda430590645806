/* Rows of weights that few tokens are multiplied with: a few rows that lie far apart are read together, each of them in the
 * order of memory. A processor fetches from so few streams by itself what comes next; of a panel's neighbouring rows it
 * tracks fewer than there are. docs/benchmarks.md has the gain.
 */
#pragma once

#include <algorithm>

#include "panel.h"

namespace {

// So much further on each stream is prefetched into the L2 cache.
constexpr int64_t PREFETCHED_BYTES = 512;

// Divides rows `row` up to `end`, at least STREAMS of a matrix, into streams. Calls act(first, steps, distance, needless) so
// that it computes `steps` rows from row `first` on, and as many of each stream that follows at this distance; results of
// the first streams, `needless` of them, another call computes.
template <int64_t STREAMS, typename Act>
KERNEL inline void for_streams(int64_t row, int64_t end, int64_t most_steps, Act act) {
    const int64_t length = (end - row) / STREAMS, rest = (end - row) % STREAMS;
    for (int64_t first = row; first < row + length; first += most_steps) {
        act(first, std::min(most_steps, row + length - first), length, int64_t(0));
    }
    if (rest > 0) {
        act(end - STREAMS, int64_t(1), int64_t(1), STREAMS - rest);
    }
}

}  // namespace
