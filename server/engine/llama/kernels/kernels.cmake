# Adds this folder's kernels to llama.cpp's CPU backend. `make install` and the Dockerfile have CMake
# include this file at the start of llama.cpp's project ggml (CMAKE_PROJECT_ggml_INCLUDE). The target
# ggml-cpu exists only at that project's end, hence the deferred calls. CMake expands their variables
# only then, too.
set(DRAGOMAN_KERNELS "${CMAKE_CURRENT_LIST_DIR}")
cmake_language(DEFER CALL target_sources ggml-cpu PRIVATE
    "${DRAGOMAN_KERNELS}/avx2.cpp"
    "${DRAGOMAN_KERNELS}/avx512.cpp"
    "${DRAGOMAN_KERNELS}/amx.cpp"
    "${DRAGOMAN_KERNELS}/neon.cpp"
    "${DRAGOMAN_KERNELS}/neon_i8mm.cpp"
    "${DRAGOMAN_KERNELS}/each.cpp"
    "${DRAGOMAN_KERNELS}/zeros.cpp"
    "${DRAGOMAN_KERNELS}/extension.cpp")
cmake_language(DEFER CALL target_compile_options ggml-cpu PRIVATE
    "$<$<COMPILE_LANGUAGE:C>:SHELL:-include '${DRAGOMAN_KERNELS}/fp16_scales.h'>")
# Leaves llama.cpp's own AMX code out. Our kernels take all of its formats, with weights where they lie in the file; and it
# configures the tiles of a thread once, which ours configure and release in each operation. GCC 12 compiles it wrongly
# besides: it drops parts of the configuration, and the first product ends the process (findings/).
cmake_language(DEFER CALL target_compile_options ggml-cpu PRIVATE -U__AMX_INT8__)
