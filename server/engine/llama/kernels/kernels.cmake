# What llama.cpp is compiled with besides its own sources: the files beside this one, which say why. `make
# install` and the Dockerfile have CMake include this where llama.cpp's project ggml begins
# (CMAKE_PROJECT_ggml_INCLUDE). The target is there when that project's own file has been read; only then
# are the variables in these calls read too.
set(DRAGOMAN_KERNELS "${CMAKE_CURRENT_LIST_DIR}")
cmake_language(DEFER CALL target_sources ggml-cpu PRIVATE
    "${DRAGOMAN_KERNELS}/avx2.cpp"
    "${DRAGOMAN_KERNELS}/avx512.cpp"
    "${DRAGOMAN_KERNELS}/extension.cpp")
cmake_language(DEFER CALL target_compile_options ggml-cpu PRIVATE
    "$<$<COMPILE_LANGUAGE:C>:SHELL:-include '${DRAGOMAN_KERNELS}/fp16_scales.h'>")
