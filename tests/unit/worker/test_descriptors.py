"""Descriptors that workers take, give back and do not inherit."""

from __future__ import annotations

import asyncio
import os
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from server.core.errors import ModelUnavailable
from tests.unit.worker.conftest import (
    SHORT,
    ModelMaker,
    SupervisorFor,
    worker_pid,
)

pytestmark = pytest.mark.process


@contextmanager
def few_descriptors(spare: int) -> Iterator[None]:
    """Let the process open only so many more descriptors."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    hoard = [os.open(os.devnull, os.O_RDONLY) for _ in range(20)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(hoard) + 1, hard))
    for descriptor in hoard[:spare]:
        os.close(descriptor)
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for descriptor in hoard[spare:]:
            os.close(descriptor)


def descriptors() -> int:
    return len(list(Path("/dev/fd").iterdir()))


@pytest.mark.parametrize("spare", range(6))
async def test_want_of_descriptors_makes_a_model_unavailable_until_there_are_some(
    spare: int, supervisor_for: SupervisorFor, fake_model: ModelMaker
) -> None:
    supervisor = supervisor_for(fake_model())
    await supervisor.ready()
    await supervisor.stop()
    before = descriptors()
    with (
        few_descriptors(spare),
        pytest.raises(ModelUnavailable, match=r"could not be started|exited"),
    ):
        await supervisor.ready()
    assert supervisor.state == "failed"
    await asyncio.sleep(SHORT.cool_down_seconds)
    await supervisor.ready()
    await supervisor.stop()
    assert descriptors() <= before


async def test_no_descriptor_is_left_behind_by_many_lives(
    supervisor_for: SupervisorFor, fake_model: ModelMaker
) -> None:
    supervisor = supervisor_for(fake_model())
    await supervisor.ready()
    await supervisor.stop()
    before = descriptors()
    for _ in range(5):
        await supervisor.ready()
        await supervisor.stop()
    assert descriptors() <= before


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
async def test_a_worker_has_a_group_of_its_own_in_the_session_and_nothing_to_read(
    supervisor_for: SupervisorFor, fake_model: ModelMaker
) -> None:
    supervisor = supervisor_for(fake_model())
    await supervisor.ready()
    pid = worker_pid(supervisor)
    assert os.getpgid(pid) == pid
    assert os.getsid(pid) == os.getsid(0)
    assert os.readlink(f"/proc/{pid}/fd/0") == "/dev/null"  # noqa: PTH115
