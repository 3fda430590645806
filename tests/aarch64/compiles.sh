#!/usr/bin/env bash
# Whether the kernels compile for AArch64, by a cross compiler (Debian: g++-aarch64-linux-gnu). It takes seconds, where
# `make test-aarch64` emulates processors for an hour.
set -euo pipefail
cd "$(dirname "$0")/../.."

command -v aarch64-linux-gnu-g++ > /dev/null || { echo "no cross compiler: not compiled for AArch64" >&2; exit 0; }
llama_cpp=$(tests/aarch64/sources.sh)
for architecture in armv8-a armv8.6-a; do
    for unit in neon neon_i8mm extension; do
        aarch64-linux-gnu-g++ -fsyntax-only -std=gnu++17 -O1 -march="$architecture" -DNDEBUG \
            -I"$llama_cpp"/ggml/include -I"$llama_cpp"/ggml/src -I"$llama_cpp"/ggml/src/ggml-cpu \
            "server/engine/llama/kernels/$unit.cpp"
    done
done
