#!/usr/bin/env bash
# `make test-aarch64`: compiles ggml with the kernels for AArch64, and runs their tests on emulated processors.
#
# Needs a cross compiler, CMake and qemu; Debian: apt install g++-aarch64-linux-gnu cmake qemu-user. The
# sources of ggml are kept in the cache, and what is compiled in build/aarch64. Arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/../.."
python=${PYTHON:-.venv/bin/python}

for tool in aarch64-linux-gnu-g++ cmake qemu-aarch64; do
    command -v "$tool" > /dev/null || { echo "$tool is missing; see $0" >&2; exit 1; }
done

builds=build/aarch64
llama_cpp=$(PYTHON=$python tests/aarch64/sources.sh)

# Compiles for an architecture, `$1`, with its extensions.
build() {
    cmake -S tests/aarch64 -B "$builds/$1" -DGGML="$llama_cpp/ggml" -DGGML_CPU_ARM_ARCH="$1" \
        -DCMAKE_BUILD_TYPE=Release -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 \
        -DCMAKE_C_COMPILER=aarch64-linux-gnu-gcc -DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++ > /dev/null
    cmake --build "$builds/$1" --parallel "$(nproc)" --target operations
}

# The command that computes operations, as compiled for `$1`, on a processor that qemu knows by the name `$2`.
operations() {
    echo "qemu-aarch64 -cpu $2 -L /usr/aarch64-linux-gnu $builds/$1/operations"
}

test_on() {
    echo "Compiled for $1, on $2:"
    # Emulation is slow.
    DRAGOMAN_EMULATED_GGML=$(operations "$1" "$2") PYTHONPATH=. \
        "$python" -m pytest -q -p no:cacheprovider --timeout 1800 "${@:3}" \
        tests/unit/engine/test_{matrix_kernels,attention_kernel,rotation_kernel}.py
}

# For all processors: one with dot products gets the kernels, one with matrix products of bytes those by these, and one
# with neither llama.cpp's own code.
build armv8-a
test_on armv8-a neoverse-n1 "$@"
test_on armv8-a max -k is_exact_but
test_on armv8-a cortex-a72 -k left_to_llama_cpp
if $(operations armv8-a cortex-a72) < /dev/null | grep dragoman; then
    echo "the kernels run on a processor that lacks their instructions" >&2
    exit 1
fi

# As for the processor that compiles, where that has matrix products of bytes. (With SVE, of which compilers make a
# little, emulated attention takes ten times as long.)
build armv8.6-a
test_on armv8.6-a max "$@"
