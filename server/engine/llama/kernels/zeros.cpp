/* Clears memory by giving its pages back: Linux hands out zeros in their place once they are used.
 *
 * llama.cpp clears the KV cells and the logits of a new context, some hundred megabytes, of which most are not used
 * soon or ever. By memset, that is the larger part of the time in which a context is created, and all of it then
 * takes memory.
 */
#if defined(__linux__) && !defined(GGML_BACKEND_DL)  // a library that may be unloaded again must leave no pointers

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>

#include "ggml-backend-impl.h"

namespace {

// With less, a call of the system costs more than it saves.
constexpr size_t LEAST_BYTES = 1 << 20;

// Such memory is anonymous and private to the process (ggml_aligned_malloc). Where the system refuses, because it is
// locked (mlock), it is written.
void clear(ggml_backend_buffer_t buffer, uint8_t value) {
    char * const start = static_cast<char *>(ggml_backend_buffer_get_base(buffer));
    char * const end = start + buffer->size;
    if (value == 0 && buffer->size >= LEAST_BYTES) {
        const uintptr_t page = sysconf(_SC_PAGESIZE);
        char * const first = reinterpret_cast<char *>((uintptr_t(start) + page - 1) / page * page);
        char * const last = reinterpret_cast<char *>(uintptr_t(end) / page * page);
        if (madvise(first, last - first, MADV_DONTNEED) == 0) {
            memset(start, 0, first - start);
            memset(last, 0, end - last);
            return;
        }
    }
    memset(start, value, buffer->size);
}

decltype(ggml_backend_buffer_type_i::alloc_buffer) allocate_as_before;

ggml_backend_buffer_t allocate(ggml_backend_buffer_type_t type, size_t size) {
    ggml_backend_buffer_t buffer = allocate_as_before(type, size);
    if (buffer != nullptr) {
        buffer->iface.clear = clear;
    }
    return buffer;
}

__attribute__((constructor)) void clear_by_giving_back() {
    ggml_backend_buffer_type_t type = ggml_backend_cpu_buffer_type();
    allocate_as_before = type->iface.alloc_buffer;
    type->iface.alloc_buffer = allocate;
}

}  // namespace

#endif
