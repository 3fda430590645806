"""The self-test of our kernels finds wrong products."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

import server.engine.llama

pytestmark = pytest.mark.process

HEADER = Path(server.engine.llama.__file__).with_name("kernels") / "self_test.h"

# Prints the verdict on exact products, on one wrong by a thousandth, and on a NaN.
PROGRAM = """
#include <cstdio>
#include <initializer_list>
#include <cmath>

#include "self_test.h"

int main() {
    const int rows = 3, tokens = 2, columns = 32;
    float weights[rows * columns], activations[tokens * columns], results[tokens * rows] = {};
    Numbers numbers;
    for (float & weight : weights) weight = numbers.next();
    for (float & activation : activations) activation = numbers.next();
    for (int i = 0; i < tokens * rows; i++)
        for (int c = 0; c < columns; c++)
            results[i] += weights[i % rows * columns + c] * activations[i / rows * columns + c];
    for (float error : {0.f, 1e-3f, NAN}) {
        const float right = results[4];
        results[4] += error;
        printf("%d", products_are_right(weights, rows, activations, tokens, columns, results));
        results[4] = right;
    }
}
"""


def test_only_right_products_pass(tmp_path: Path) -> None:
    compiler = shutil.which("c++")
    if compiler is None:
        pytest.skip("needs a C++ compiler")
    source, program = tmp_path / "test.cpp", tmp_path / "test"
    source.write_text(PROGRAM)
    flags = ["-std=c++17", "-Wall", "-Werror", f"-I{HEADER.parent}"]
    subprocess.run([compiler, *flags, str(source), "-o", str(program)], check=True)
    assert subprocess.run([program], capture_output=True, check=True).stdout == b"100"
