// Which operations are left to llama.cpp's own code although its sums depend on what else is computed: on other
// rows of a batch, or on where cells lie.
#pragma once

#include <cstdio>
#include <cstring>

#include "kernels.h"

namespace {

// What the declined operation was multiplied with or looked at, or null if its order of sums is always the same.
const ggml_tensor * subject_of_declined(const ggml_tensor * op) {
    switch (op->op) {
        case GGML_OP_MUL_MAT:
            return is_rotation(op) ? nullptr : op->src[0];
        case GGML_OP_MUL_MAT_ID:
            return op->src[0];
        case GGML_OP_FLASH_ATTN_EXT:
            return op->src[1];
        case GGML_OP_SOFT_MAX:
            return op->src[1];  // a mask: attention over cells, without flash attention
        default:
            return nullptr;
    }
}

// The first such operation of a thread. The thread that asks for a computation takes part in each operation of it,
// so this tells what its own computations have declined, whatever others compute meanwhile.
thread_local char first_declined[128];

void note_declined(const ggml_tensor * op) {
    const ggml_tensor * subject = subject_of_declined(op);
    if (subject != nullptr && first_declined[0] == 0 && !ggml_is_empty(op)) {
        snprintf(first_declined, sizeof first_declined, "%s with %s (%s)", ggml_op_name(op->op),
                 subject->name, ggml_type_name(subject->type));
    }
}

// The first one since the last call, as text that stays until the next call; null if there was none.
const char * take_declined() {
    thread_local char taken[sizeof first_declined];
    memcpy(taken, first_declined, sizeof taken);
    first_declined[0] = 0;
    return taken[0] == 0 ? nullptr : taken;
}

}  // namespace
