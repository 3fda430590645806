#!/usr/bin/env bash
# Prints the folder of llama.cpp's sources, of the version that is pinned; they are kept in the cache.
set -euo pipefail
cd "$(dirname "$0")/../.."

cache=${DRAGOMAN_CACHE_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/dragoman}/aarch64
llama_cpp=$(grep ^llama_cpp_python== constraints.txt)
sources=$cache/${llama_cpp/==/-}
if ! test -d "$sources"; then
    mkdir -p "$cache"
    "${PYTHON:-.venv/bin/python}" -m pip download --quiet --no-deps --no-binary llama-cpp-python --dest "$cache" "$llama_cpp" >&2
    tar -xzf "$sources.tar.gz" -C "$cache"
fi
echo "$sources/vendor/llama.cpp"
