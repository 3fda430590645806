"""The processor that runs the tests."""

from __future__ import annotations

from pathlib import Path


def has_feature(flag: str) -> bool:
    """Whether Linux lists ``flag`` among the processor's features; false on other systems."""
    cpuinfo = Path("/proc/cpuinfo")
    return cpuinfo.exists() and flag in cpuinfo.read_text().split()


def has_kernels() -> bool:
    """Whether our kernels are for this processor: x86 with AVX2, Arm with dot products of bytes."""
    return has_feature("avx2") or has_feature("asimddp")
