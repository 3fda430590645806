"""The kernels for AVX2, on processors that have more."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.engine.processor import has_feature

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(
        not has_feature("avx512_vnni"), reason="elsewhere the kernels for AVX2 are those tested"
    ),
]

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "GGML_DRAGOMAN_AVX2": ""}
ONLY_AVX2 = {**ENVIRONMENT, "GGML_DRAGOMAN_AVX2": "1"}

# Prints a product of numbers whose sum depends on the order of its terms: that of 8 lanes or of 16.
PROGRAM = """
from ctypes import c_void_p

import numpy as np
from gguf import GGMLQuantizationType

from tests.unit.engine.ggml import Graph, call

rng = np.random.default_rng(0)
graph = Graph()
numbers = [rng.normal(size=shape).astype(np.float32) for shape in [(48, 1024), (1, 1024)]]
tensors = [graph.tensor(GGMLQuantizationType.F32, each.shape, each) for each in numbers]
product = c_void_p(call("ggml_mul_mat", c_void_p, graph.context, *tensors))
print(graph.compute(product, (1, 48)).tobytes().hex())
"""


def test_a_variable_leaves_the_later_kernels_out() -> None:
    products = [
        subprocess.run(
            [sys.executable, "-c", PROGRAM], env=env, cwd=ROOT, check=True, capture_output=True
        ).stdout
        for env in (ENVIRONMENT, ONLY_AVX2)
    ]
    assert all(products)
    assert products[0] != products[1]


# Ten seconds each, but their threads wait for each other beside other work.
@pytest.mark.timeout(600)
@pytest.mark.parametrize("operation", ["matrix_kernels", "attention_kernel", "rotation_kernel"])
def test_they_pass_the_tests_of_all_kernels(operation: str) -> None:
    tests = str(HERE / f"test_{operation}.py")
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", tests]
    run = subprocess.run(
        command, env=ONLY_AVX2, cwd=ROOT, check=False, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stdout[-4000:]
