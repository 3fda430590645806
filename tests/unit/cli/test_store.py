"""`dragoman store` counts, prunes and exports."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import pytest

from server.cli import main
from server.store.kinds import Limits
from server.store.store import Store
from tests.unit.store.test_records import chain, conversation, item

Run = Callable[..., str]


@pytest.fixture
def url(tmp_path: Path) -> str:
    url = f"sqlite:///{tmp_path}/store.db"
    store = Store(url, Limits(bytes=1 << 40, seconds=86_400))
    store.transact(lambda records: chain(records, 3), writes=True)
    store.transact(
        lambda records: records.conversations.create(conversation(), [item("c")]), writes=True
    )
    store.close_now()
    return url


@pytest.fixture
def run(url: str, capfdbinary: pytest.CaptureFixture[bytes]) -> Run:
    def run(action: str, *flags: str) -> str:
        with pytest.raises(SystemExit) as ended:
            main(["store", action, "--store-url", url, *flags])
        assert ended.value.code == 0
        return capfdbinary.readouterr().out.decode()

    return run


def test_info_counts(run: Run) -> None:
    shown = run("info")
    assert "responses        3 (0 running)" in shown
    assert "conversations    1" in shown
    assert "items            7" in shown


def test_prune_keeps_to_the_limits(run: Run) -> None:
    assert run("prune").startswith("removed 0 chains")
    assert run("prune", "--store-max-bytes", "1").startswith("removed 1 chains")
    assert "responses        0" in run("info")


def test_export_writes_one_object_a_line(run: Run) -> None:
    lines = [json.loads(line) for line in run("export").splitlines()]
    assert [line["id"] for line in lines] == ["conv_1", "r0", "r1", "r2"]


@pytest.mark.parametrize("failing", ["write", "flush"])
@pytest.mark.parametrize(("number", "said"), [(errno.EPIPE, ""), (errno.ENOSPC, "No space left")])
def test_an_export_that_cannot_be_written_is_no_failure_of_the_store(
    url: str,
    failing: str,
    number: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    buffer = Mock()
    getattr(buffer, failing).side_effect = OSError(number, os.strerror(number))
    monkeypatch.setattr("sys.stdout", SimpleNamespace(buffer=buffer))
    with pytest.raises(SystemExit) as ended:
        main(["store", "export", "--store-url", url])
    assert ended.value.code == 1
    error = capsys.readouterr().err
    assert said in error
    assert bool(said) == bool(error)
    assert not caplog.records


def test_what_is_not_there_is_not_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "none" / "store.db"
    with pytest.raises(SystemExit) as ended:
        main(["store", "info", "--store-url", f"sqlite:///{file}"])
    assert ended.value.code == 1
    assert "nothing is stored" in capsys.readouterr().err
    assert not file.parent.exists()
