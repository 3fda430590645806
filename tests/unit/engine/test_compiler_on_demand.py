"""When the compiler of grammars is built."""

from __future__ import annotations

from typing import Any

import pytest

from server.engine.sampling import compiler_on_demand
from server.engine.sampling.compiler_on_demand import CompilerOnDemand

pytestmark = pytest.mark.fast


class Built:
    """Stands for the model's tokenizer; counts how often it was made."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> Any:
        self.times += 1


def test_a_compiler_is_built_once_and_not_before_it_is_needed() -> None:
    built = Built()
    compiler = CompilerOnDemand(built, 8)
    assert (built.times, compiler.is_built) == (0, False)
    assert compiler.get() is compiler.get()
    assert (built.times, compiler.is_built) == (1, True)


def test_a_compiler_is_built_once_the_engine_has_idled_for_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It silences the process for a second, in which a request may come, or an unload."""
    monkeypatch.setattr(compiler_on_demand, "_LOOK_SECONDS", 0)
    built = Built()
    idle = iter([True, True, True, True, False, True, True, True, True, True])
    CompilerOnDemand(built, 8).build_when(lambda: next(idle))
    assert built.times == 1
    assert next(idle, None) is None


def test_what_may_silence_the_process_is_announced() -> None:
    announced: list[tuple[bool, int]] = []
    built = Built()
    compiler = CompilerOnDemand(built, 8)
    compiler.before_build = lambda: announced.append((compiler.is_being_built, built.times))
    compiler.get()
    compiler.get()
    assert announced == [(True, 0)]
    assert not compiler.is_being_built


def test_a_compiler_that_was_needed_is_not_built_again_in_idle_time() -> None:
    built = Built()
    compiler = CompilerOnDemand(built, 8)
    compiler.get()
    compiler.build_when(lambda: pytest.fail("nothing is left to be built"))
    assert built.times == 1
