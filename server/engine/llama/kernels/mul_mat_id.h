/* Matrix multiplication with mixtures of experts: each token is multiplied with the matrices of the experts
 * that its ids name. The rows of one expert are multiplied together, so that its weights are unpacked once.
 */
#pragma once

#include "mul_mat.h"

namespace {

// Shapes, innermost first: weights [columns, rows, experts]; input [columns, used or 1, tokens]; ids [used,
// tokens]; result [rows, used, tokens]. Rows of activations, `used` for each token, are sorted by expert.
struct Experts {
    const ggml_tensor *weights, *input, *ids;
    int64_t count, used, rows;

    explicit Experts(const ggml_tensor * result)
        : weights(result->src[0]), input(result->src[1]), ids(result->src[2]) {
        count = weights->ne[2];
        used = ids->ne[0];
        rows = used * ids->ne[1];
    }

    // The expert of a row of activations.
    int32_t of_row(int64_t row) const {
        const char * of_token = static_cast<const char *>(ids->data) + row / used * ids->nb[1];
        const int32_t expert = reinterpret_cast<const int32_t *>(of_token)[row % used];
        GGML_ASSERT(expert >= 0 && expert < count);
        return expert;
    }
};

// What the threads share of sorting rows: row i goes to place places[i]; those of expert e begin at starts[e]
// and end at starts[e + 1]; `active` experts of `order` have rows.
struct SortedRows {
    float ** results;
    int32_t *places, *starts, *order, *active;

    SortedRows(void * memory, const Experts & experts) {
        results = static_cast<float **>(memory);
        places = reinterpret_cast<int32_t *>(results + experts.rows);
        starts = places + experts.rows;
        order = starts + experts.count + 1;
        active = order + experts.count;
    }

    void * end() const { return active + 1; }

    static size_t size(const Experts & experts) {
        return experts.rows * sizeof(float *) +
               (experts.rows + 2 * experts.count + 2) * sizeof(int32_t);
    }

    void sort(const Experts & experts) const {
        std::fill_n(starts, experts.count + 1, 0);
        for (int64_t row = 0; row < experts.rows; row++) {
            places[row] = starts[experts.of_row(row) + 1]++;
        }
        *active = 0;
        for (int64_t expert = 0; expert < experts.count; expert++) {
            if (starts[expert + 1] > 0) {
                order[(*active)++] = expert;
            }
            starts[expert + 1] += starts[expert];
        }
        for (int64_t row = 0; row < experts.rows; row++) {
            places[row] += starts[experts.of_row(row)];
        }
    }
};

// One thread's part of the operation.
template <typename Block>
KERNEL void mul_mat_id(const ggml_compute_params * params, ggml_tensor * result) {
    const Experts experts(result);
    const ggml_tensor *weights = experts.weights, *input = experts.input;
    if constexpr (HAS_NARROW_FORM<Block>) {
        if (experts.ids->ne[1] < LEAST_TOKENS_TOGETHER<Block>) {
            return mul_mat_id<Narrow<Block>>(params, result);
        }
    }
    const SortedRows sorted(params->wdata, experts);
    Activations<Block> * activations = first_activations<Block>(sorted.end());
    const int64_t rows = weights->ne[1], blocks = weights->ne[0] / NUMBERS<Block>;
    const int64_t panels = (rows + PANEL_ROWS - 1) / PANEL_ROWS;
    if (params->ith == 0) {
        sorted.sort(experts);
        ggml_threadpool_chunk_set(params->threadpool, params->nth);
    }
    ggml_barrier(params->threadpool);

    for (int64_t row = params->ith; row < experts.rows; row += params->nth) {
        const int64_t slot = row % experts.used, token = row / experts.used;
        const auto * numbers = reinterpret_cast<const float *>(
            static_cast<const char *>(input->data) + slot % input->ne[1] * input->nb[1] +
            token * input->nb[2]);
        const int32_t expert = experts.of_row(row), place = sorted.places[row];
        const int64_t start = sorted.starts[expert], rows = sorted.starts[expert + 1] - start;
        quantize_rows<Block>(&numbers, place - start, 1, rows, blocks, activations + start * blocks);
        char * target =
            static_cast<char *>(result->data) + slot * result->nb[1] + token * result->nb[2];
        sorted.results[place] = reinterpret_cast<float *>(target);
    }
    ggml_barrier(params->threadpool);

    float * columns = columns_of_thread<Block>(activations + experts.rows * blocks, blocks, params->ith);
    const int64_t job_panels = std::min(panels, panels_of_a_job(panels * *sorted.active, params->nth));
    const int64_t jobs = (panels + job_panels - 1) / job_panels;  // of each expert
    for (int64_t job = params->ith; job < jobs * *sorted.active;
         job = ggml_threadpool_chunk_add(params->threadpool, 1)) {
        const int32_t expert = sorted.order[job / jobs], start = sorted.starts[expert];
        const Matrix matrix{static_cast<const char *>(weights->data) + expert * weights->nb[2],
                            int64_t(weights->nb[1]), rows, blocks};
        const int64_t panel = job % jobs * job_panels;
        multiply<Block>(matrix, panel, std::min(panels, panel + job_panels),
                        activations + start * blocks, sorted.starts[expert + 1] - start,
                        sorted.results + start, columns);
    }
}

}  // namespace
