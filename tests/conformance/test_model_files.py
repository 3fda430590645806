"""Rows 81 to 88 of the bad inputs: broken model files, and files that change while in use."""

from __future__ import annotations

import os
import shutil
import signal
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gguf
import httpx
import pytest

from tests.conformance.connection import assert_canary
from tests.conformance.watch import until
from tests.e2e.server import Server, running_server
from tests.tiny_models import write_tiny_model

pytestmark = pytest.mark.process

STEADY = "steady"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The models folder of the server; no test changes the model `STEADY`."""
    folder = tmp_path_factory.mktemp("models")
    write_tiny_model(folder / f"{STEADY}.gguf", "full attention")
    return folder


@pytest.fixture(scope="module")
def tiny(models: Path) -> Iterator[Server]:
    with running_server("--models-dir", str(models), "--threads", "1") as server:
        yield server


@pytest.fixture(autouse=True)
def the_server_and_other_models_stay(tiny: Server) -> Iterator[None]:
    """After each test the steady model answers, from the same worker."""
    assert_canary(tiny, STEADY)
    steady = tiny.worker_pids()[STEADY]
    yield
    assert_canary(tiny, STEADY)
    assert tiny.worker_pids()[STEADY] == steady
    assert tiny.process.poll() is None


def ask(server: Server, model: str, **fields: Any) -> httpx.Response:
    body = {"model": model, "prompt": "Hello", "max_tokens": 8, "temperature": 0, **fields}
    return httpx.post(f"{server.url}/v1/completions", json=body, timeout=60)


def state(server: Server, model: str) -> str | None:
    """The model's state in the list; None if it is not listed."""
    listed = httpx.get(f"{server.url}/v1/models").json()["data"]
    return next((entry["state"] for entry in listed if entry["id"] == model), None)


def refusal(server: Server, model: str) -> str:
    """Why the model is not served: the message of a 503."""
    answer = ask(server, model)
    assert answer.status_code == 503, answer.text
    error = answer.json()["error"]
    assert error["code"] == "model_unavailable"
    assert str(os.sep) not in error["message"], "paths are nobody's business"
    message: str = error["message"]
    return message


def empty(path: Path) -> None:
    path.touch()


def text(path: Path) -> None:
    path.write_text("not a model")


def truncated(path: Path) -> None:
    os.truncate(write_tiny_model(path, "full attention"), path.stat().st_size // 2)


def tensor_past_the_end(path: Path) -> None:
    write_tiny_model(path, "full attention")
    name = b"token_embd.weight"
    data = bytearray(path.read_bytes())
    # After a tensor's name: dimensions (u32, then u64 each), type (u32), offset (u64).
    at = data.rindex(name) + len(name)
    (dimensions,) = struct.unpack_from("<I", data, at)
    struct.pack_into("<Q", data, at + 4 + 8 * dimensions + 4, 1 << 40)
    path.write_bytes(data)


def one_of_two_parts(path: Path) -> None:
    write_tiny_model(path.with_name(f"{path.stem}-00001-of-00002.gguf"), "full attention")


def unknown_architecture(path: Path) -> None:
    writer = gguf.GGUFWriter(path, "quantumformer")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def too_many_pairs(path: Path) -> None:
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 1, 1 << 63))


def assert_refused(server: Server, models: Path, make: Callable[[Path], object], says: str) -> None:
    make(models / f"{make.__name__}.gguf")
    assert says in refusal(server, make.__name__)
    assert state(server, make.__name__) == "failed"


@pytest.mark.parametrize(
    ("make", "says"), [(empty, "empty"), (truncated, "truncated"), (text, "not a GGUF file")]
)
def test_81_what_is_no_whole_model_is_refused(
    tiny: Server, models: Path, make: Callable[[Path], object], says: str
) -> None:
    assert_refused(tiny, models, make, says)


def test_82_a_claim_of_2_to_the_63_keys_is_refused(tiny: Server, models: Path) -> None:
    assert_refused(tiny, models, too_many_pairs, "are accepted")


def test_83_a_tensor_past_the_end_is_refused(tiny: Server, models: Path) -> None:
    assert_refused(tiny, models, tensor_past_the_end, "truncated")


def test_84_a_missing_part_is_named(tiny: Server, models: Path) -> None:
    assert_refused(tiny, models, one_of_two_parts, "00002-of-00002")


def test_85_an_unknown_architecture_is_named(tiny: Server, models: Path) -> None:
    assert_refused(tiny, models, unknown_architecture, "quantumformer")


def loaded(server: Server, models: Path, name: str) -> Path:
    """Add a model and load it."""
    path = write_tiny_model(models / f"{name}.gguf", "full attention")
    assert_canary(server, name)
    return path


def test_86_a_deleted_file_keeps_serving_and_reloading_says_why_not(
    tiny: Server, models: Path
) -> None:
    path = loaded(tiny, models, "deleted")
    path.unlink()
    time.sleep(2.5)  # the server scans the folder every two seconds
    assert_canary(tiny, "deleted")
    os.kill(tiny.worker_pids()["deleted"], signal.SIGKILL)
    refused = ask(tiny, "deleted")
    assert refused.status_code == 503, refused.text
    assert "No such file" in refused.json()["error"]["message"]
    until(lambda: state(tiny, "deleted") is None)
    assert ask(tiny, "deleted").status_code == 404
    write_tiny_model(path, "full attention")
    assert_canary(tiny, "deleted")


def test_87_of_a_replaced_file_nothing_old_is_answered(tiny: Server, models: Path) -> None:
    path = loaded(tiny, models, "replaced")
    long = "Once upon a time. " * 10
    before = ask(tiny, "replaced", prompt=long)
    assert (
        ask(tiny, "replaced", prompt=long).json()["usage"]["prompt_tokens_details"]["cached_tokens"]
        > 0
    )
    other = write_tiny_model(models / "other.part", "full attention", seed=2)
    other.replace(path)
    until(lambda: state(tiny, "replaced") == "unloaded")
    after = ask(tiny, "replaced", prompt=long)
    assert after.json()["usage"]["prompt_tokens_details"]["cached_tokens"] == 0
    assert after.json()["choices"][0]["text"] != before.json()["choices"][0]["text"]
    assert after.json()["system_fingerprint"] != before.json()["system_fingerprint"]


def test_88_a_truncated_file_costs_its_own_requests_and_is_served_once_whole(
    tiny: Server, models: Path
) -> None:
    path = loaded(tiny, models, "cut")
    whole = models / "whole.part"
    shutil.copyfile(path, whole)
    os.truncate(path, 4096)
    answer = ask(tiny, "cut")
    # Unless the server saw the change first, the worker dies of what is no longer there.
    assert answer.status_code == 503, answer.text
    assert "truncated" in refusal(tiny, "cut")
    shutil.copyfile(whole, path)
    until(lambda: ask(tiny, "cut").status_code == 200)
