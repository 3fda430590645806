"""The header fp16_scales.h changes no number in llama.cpp."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

import server.engine.llama
from tests.unit.engine.processor import has_feature

pytestmark = pytest.mark.process

HEADER = Path(server.engine.llama.__file__).with_name("kernels") / "fp16_scales.h"

# No conversion gives a number of this table, so results show whether it was used.
PROGRAM = """
#include <immintrin.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

float ggml_table_f32_f16[1 << 16];

int main(void) {
    int wrong = 0;
    for (int bits = 0; bits < 1 << 16; bits++) {
        ggml_table_f32_f16[bits] = 100000 + bits;
        uint16_t x[1] = {bits}, y[1] = {bits};
        float exact = _cvtsh_ss(bits), weight = GGML_CPU_FP16_TO_FP32(x[0]);
        wrong += memcmp(&weight, &exact, sizeof exact) != 0;
        wrong += GGML_CPU_FP16_TO_FP32(y[0]) != 100000 + bits;
    }
    printf("%d", wrong);
}
"""


@pytest.fixture
def compiler() -> str:
    found = shutil.which("cc")
    return found if found is not None else pytest.skip("needs a C compiler")


@pytest.mark.skipif(not has_feature("f16c"), reason="needs an x86 processor with F16C, on Linux")
def test_weights_are_converted_and_activations_looked_up(compiler: str, tmp_path: Path) -> None:
    source, program = tmp_path / "scales.c", tmp_path / "scales"
    source.write_text(PROGRAM)
    flags = ["-O2", "-Wall", "-Werror", "-mf16c", "-include", str(HEADER)]
    subprocess.run([compiler, *flags, str(source), "-o", str(program)], check=True)
    assert subprocess.run([program], capture_output=True, check=True).stdout == b"0"


def test_without_f16c_llama_cpp_keeps_its_own_conversion(compiler: str) -> None:
    command = [compiler, "-E", "-dM", "-x", "c", "-include", str(HEADER), "/dev/null"]
    defined = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "GGML_CPU_FP16_TO_FP32" not in defined
