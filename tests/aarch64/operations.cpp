/* Computes operations of ggml that a test sends (tests/unit/engine/emulated.py).
 *
 * Says first which types of buffers the CPU backend has besides its own, in one line. Then reads an operation, writes
 * its result, and so on until the input ends. An operation is
 *
 *     uint32 threads, uint32 count
 *     count times: a ggml_tensor, and its contents if it is neither a view nor computed
 *
 * Tensors come after those that they point to, the result last; a pointer is 1 + the index of its tensor. Contents end
 * where memory that nobody may read begins, or up to 31 bytes before.
 */
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <vector>

#include "ggml-backend.h"
#include "ggml-cpu.h"
#include "ggml.h"

namespace {

bool read_all(void * data, size_t size) { return fread(data, 1, size, stdin) == size; }

void must(bool done, const char * what) {
    if (!done) {
        perror(what);
        exit(1);
    }
}

// Memory of a tensor, in a buffer of the CPU.
class Memory {
  public:
    explicit Memory(size_t size) {
        const size_t page = sysconf(_SC_PAGESIZE);
        const size_t used = (size + page - 1) / page * page;
        mapped = used + page;
        start = static_cast<char *>(
            mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
        must(start != MAP_FAILED, "mmap");
        must(mprotect(start + used, page, PROT_NONE) == 0, "mprotect");
        data = start + (used - size) / ALIGNMENT * ALIGNMENT;
        buffer = ggml_backend_cpu_buffer_from_ptr(data, start + used - data);
    }

    ~Memory() {
        ggml_backend_buffer_free(buffer);
        munmap(start, mapped);
    }

    Memory(const Memory &) = delete;
    Memory & operator=(const Memory &) = delete;

    void hold(ggml_tensor & tensor) const {
        tensor.data = data;
        tensor.buffer = buffer;
    }

  private:
    static constexpr size_t ALIGNMENT = 32;  // which ggml demands

    size_t mapped;
    char *start, *data;
    ggml_backend_buffer_t buffer;
};

struct Operation {
    uint32_t threads, count;
    std::vector<ggml_tensor> tensors;
    std::vector<std::unique_ptr<Memory>> memories;

    // Whether there was another one.
    bool read() {
        if (!read_all(&threads, sizeof threads)) {
            return false;
        }
        must(read_all(&count, sizeof count), "count");
        tensors.resize(count);
        for (ggml_tensor & tensor : tensors) {
            must(read_all(&tensor, sizeof tensor), "tensor");
            for (ggml_tensor *& source : tensor.src) {
                source = at(source);
            }
            tensor.view_src = at(tensor.view_src);
            if (tensor.view_src != nullptr) {
                tensor.buffer = tensor.view_src->buffer;
                tensor.data = static_cast<char *>(tensor.view_src->data) + tensor.view_offs;
                continue;
            }
            memories.push_back(std::make_unique<Memory>(ggml_nbytes(&tensor)));
            memories.back()->hold(tensor);
            if (tensor.op == GGML_OP_NONE) {
                must(read_all(tensor.data, ggml_nbytes(&tensor)), "contents");
            }
        }
        return true;
    }

    void compute(ggml_backend_t backend) {
        ggml_backend_cpu_set_n_threads(backend, threads);
        ggml_context * context = ggml_init({ggml_graph_overhead(), nullptr, false});
        ggml_cgraph * graph = ggml_new_graph(context);
        ggml_build_forward_expand(graph, &tensors.back());
        must(ggml_backend_graph_compute(backend, graph) == GGML_STATUS_SUCCESS, "compute");
        ggml_free(context);
        const size_t size = ggml_nbytes(&tensors.back());
        must(fwrite(tensors.back().data, 1, size, stdout) == size && fflush(stdout) == 0, "result");
    }

  private:
    ggml_tensor * at(const ggml_tensor * pointer) {
        const uintptr_t index = reinterpret_cast<uintptr_t>(pointer);
        return index == 0 ? nullptr : &tensors[index - 1];
    }
};

void say_buffer_types() {
    const auto get = reinterpret_cast<ggml_backend_dev_get_extra_bufts_t>(
        ggml_backend_reg_get_proc_address(ggml_backend_cpu_reg(),
                                          "ggml_backend_dev_get_extra_bufts"));
    ggml_backend_dev_t device = ggml_backend_reg_dev_get(ggml_backend_cpu_reg(), 0);
    for (ggml_backend_buffer_type_t * type = get(device); *type != nullptr; type++) {
        printf("%s ", ggml_backend_buft_name(*type));
    }
    printf("\n");
    fflush(stdout);
}

}  // namespace

int main() {
    say_buffer_types();
    ggml_backend_t backend = ggml_backend_cpu_init();
    for (Operation operation; operation.read(); operation = Operation()) {
        operation.compute(backend);
    }
    ggml_backend_free(backend);
}
