"""`dragoman bench` against an endpoint that answers at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.api.test_tls import make_certificate
from tests.unit.cli.conftest import Run
from tests.unit.cli.fake_server import FakeServer

pytestmark = pytest.mark.process

PIECE = {"choices": [{"delta": {"content": "word"}}]}
USAGE = {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 1}}


def endpoint(status: int = 200, answer: Any = None) -> FakeServer:
    return FakeServer(
        {
            "/v1/models": (200, {"data": [{"id": "tiny"}, {"id": "other"}]}),
            "/v1/chat/completions": (status, answer or [PIECE, USAGE]),
        }
    )


def test_a_table_has_a_row_for_each_workload(run: Run) -> None:
    with endpoint().running() as fake:
        result = run("bench", fake.url, "--workload", "single", "--workload", "c8")
    assert result.exit_code == 0
    heading, *rows = result.out.splitlines()
    assert "tokens/s" in heading
    assert [row.split()[:2] for row in rows] == [["single", "1/1"], ["c8", "8/8"]]
    assert {body["model"] for path, _, body in fake.requests if "chat" in path} == {"tiny"}


def test_json_has_the_numbers(run: Run) -> None:
    with endpoint().running() as fake:
        address = f"{fake.url}/v1"
        result = run("bench", address, "--model", "other", "--workload", "copy", "--json")
    [summary] = json.loads(result.out)
    assert summary["workload"] == "copy"
    assert summary["completion_tokens"] == 1
    assert fake.requests[-1][2]["model"] == "other"


def test_a_server_that_refuses_says_why(run: Run) -> None:
    with endpoint(400, {"error": {"message": "unknown field"}}).running() as fake:
        result = run("bench", fake.url)
    assert result.exit_code == 1
    assert "400: unknown field" in result.err


def test_a_failed_request_is_told_by_the_exit_code(run: Run) -> None:
    with endpoint().running() as fake:
        result = run("bench", fake.url, "--workload", "overflow", "--kv-tokens", "64")
        assert result.exit_code == 0
        fake.answers["/v1/chat/completions"] = (200, [PIECE, {"error": {"message": "oops"}}])
        result = run("bench", fake.url, "--workload", "single")
    assert result.exit_code == 1
    assert "oops" in result.err


@pytest.mark.parametrize(
    "arguments",
    [["--workload", "unheard-of"], ["--workload", "overflow"]],
    ids=["unknown workload", "overflow without the number of cells"],
)
def test_wrong_arguments_are_refused(run: Run, arguments: list[str]) -> None:
    assert run("bench", "http://127.0.0.1:9", *arguments).exit_code == 2


def test_a_server_that_is_not_there_is_told(run: Run) -> None:
    result = run("bench", "http://127.0.0.1:9")
    assert result.exit_code == 1
    assert "does not answer" in result.err


def test_the_certificate_of_the_own_server_is_trusted_and_no_other(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = make_certificate(folder, "one")
    for name, file in zip(("CERTIFICATE", "KEY"), pair, strict=True):
        monkeypatch.setenv(f"DRAGOMAN_TLS_{name}", str(file))
    with endpoint().running(tls=pair) as fake:
        asked = ("bench", f"{fake.url}/v1", "--workload", "single")
        stranger = run(*asked)
        monkeypatch.setenv("DRAGOMAN_PORT", fake.url.rpartition(":")[2])
        assert run(*asked).exit_code == 0
    assert stranger.exit_code == 1
    assert "CERTIFICATE_VERIFY_FAILED" in stranger.err


def test_a_server_at_a_unix_socket_is_measured(run: Run, folder: Path) -> None:
    with endpoint().running(at=folder / "socket"):
        assert run("bench", f"unix:{folder}/socket", "--workload", "single").exit_code == 0
