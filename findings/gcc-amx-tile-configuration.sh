#!/usr/bin/env bash
# GCC 12 (x86) and llama-cpp-python 0.3.36 (llama.cpp b11434): a llama.cpp compiled with AMX dies by
# SIGSEGV in its first decode, on machines that permit AMX. It looks as if a virtual machine
# announced AMX without having it, and compiling without AMX helps. But the compiler is at fault:
# _tile_loadconfig reads 64 bytes, and GCC's header names 8 of them as its operand. A function that
# fills a configuration just before, as llama.cpp's ggml_tile_config_init does, loses the stores into
# the other 56: sizes of rows and columns are whatever lay on the stack, and LDTILECFG faults on them.
#
# Seen: of a configuration that is filled and loaded at once, the stores of a size of rows and a number
# of rows are missing in the assembly for the intrinsic; with an operand of 64 bytes both are there.
# Nothing is run, so any x86-64 GCC 11 or 12 shows it, on processors without AMX too.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

cat > configure.c <<'C'
#include <immintrin.h>
#include <stdint.h>

struct configuration {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
};

void by_intrinsic(void) {
    struct configuration configuration = {.palette = 1};
    configuration.row_bytes[4] = 48;
    configuration.rows[4] = 13;
    _tile_loadconfig(&configuration);
}

void by_whole_operand(void) {
    struct configuration configuration = {.palette = 1};
    configuration.row_bytes[4] = 48;
    configuration.rows[4] = 13;
    __asm__ volatile("ldtilecfg %0" : : "m"(configuration));
}
C

gcc --version | head -1
for level in -O2 -O3; do
    gcc "$level" -mamx-tile -S configure.c -o configure.s
    for function in by_intrinsic by_whole_operand; do
        body=$(sed -n "/^$function:/,/\\.cfi_endproc/p" configure.s)
        for stored in 'row_bytes $48' 'rows $13'; do
            grep -qF "${stored#* }," <<< "$body" && there="is stored" || there="is missing"
            echo "$level $function: ${stored% *} $there"
        done
    done
done

echo "llama.cpp inside llama-cpp-python 0.3.36:"
python3 -m venv venv
venv/bin/pip install --quiet scikit-build-core==0.12.2 cmake ninja
venv/bin/pip download --quiet --no-deps --no-binary :all: --no-build-isolation llama-cpp-python==0.3.36
tar -xzf llama_cpp_python-0.3.36.tar.gz
grep -n "tile_config_t tc\|_tile_loadconfig" \
    llama_cpp_python-0.3.36/vendor/llama.cpp/ggml/src/ggml-cpu/amx/mmq.cpp
