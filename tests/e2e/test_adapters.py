"""Adapters from the command line of the server to its answers, on a small random model."""

from __future__ import annotations

import re
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from server.cli import main
from tests.e2e.server import Server, running_server
from tests.tiny_adapters import matrices, write_merged_model, write_tiny_adapter
from tests.tiny_models import write_tiny_model

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    base = write_tiny_model(folder / "base.gguf", "full attention")
    (folder / "merged").mkdir()
    write_merged_model(folder / "merged" / "merged.gguf", base, {1: 1.0})
    write_tiny_adapter(folder / "pirate.gguf", 1)
    write_tiny_adapter(folder / "poet.gguf", 2)
    narrow = {name: (a[:, 1:].copy(), b) for name, (a, b) in matrices(1).items()}
    write_tiny_adapter(folder / "base-narrow.gguf", of=narrow)
    write_tiny_adapter(folder / "umpire.gguf", 4, invocation=[ord("@") + 3, ord("!") + 3])
    write_tiny_adapter(folder / "warden.gguf", 5, invocation=[ord("@") + 3])
    of_another_type(write_tiny_adapter(folder / "base-zealot.gguf"))
    (folder / "later").mkdir()
    write_tiny_adapter(folder / "later" / "late.gguf", 3)
    return folder


def of_another_type(adapter: Path) -> None:
    """Let a file state a type of adapter that llama.cpp does not load; its tensors fit."""
    raw = adapter.read_bytes()
    key = b"adapter.type" + struct.pack("<IQ", 8, 4)
    assert raw.count(key + b"lora") == 1
    adapter.write_bytes(raw.replace(key + b"lora", key + b"loha"))


@pytest.fixture(scope="module")
def server(models: Path) -> Iterator[Server]:
    with running_server("--models-dir", str(models), "--threads", "1") as server:
        yield server


def ask(server: Server, model: str, **fields: Any) -> httpx.Response:
    body = {"model": model, "prompt": "Ahoy, " * 20, "max_tokens": 12, "temperature": 0, **fields}
    return httpx.post(f"{server.url}/v1/completions", json=body, timeout=60)


def text(server: Server, model: str, **fields: Any) -> str:
    answer = ask(server, model, **fields)
    assert answer.status_code == 200, answer.text
    assert answer.json()["model"] == model
    said: str = answer.json()["choices"][0]["text"]
    return said


def post(server: Server, path: str, **body: Any) -> httpx.Response:
    return httpx.post(f"{server.url}{path}", json=body, timeout=60)


def test_a_model_with_an_adapter_is_a_model_of_its_own(server: Server) -> None:
    assert text(server, "base:pirate") == text(server, "merged") != text(server, "base")
    listed = {m["id"]: m for m in httpx.get(f"{server.url}/v1/models").json()["data"]}
    assert listed["base:pirate"]["parent"] == "base"
    assert listed["base:pirate"]["file"] == "pirate.gguf"
    assert listed["base"]["parent"] is None
    one = httpx.get(f"{server.url}/v1/models/base:pirate").json()
    assert (one["id"], one["parent"]) == ("base:pirate", "base")
    assert (listed["base:pirate"]["state"], listed["base:narrow"]["state"]) == ("ready", "failed")
    assert "shape" in listed["base:narrow"]["reason"]


@pytest.mark.parametrize("name", ["BASE:Pirate", "base:pirate:latest", "Base:PIRATE:latest"])
def test_letter_case_and_the_tag_latest_mean_nothing_in_names_with_adapters(
    server: Server, name: str
) -> None:
    answer = httpx.get(f"{server.url}/v1/models/{name}")
    assert (answer.status_code, answer.json().get("id")) == (200, "base:pirate")


def test_an_adapters_file_is_said_to_be_no_model(
    server: Server, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["show", str(models / "pirate.gguf")])
    assert "no model by itself" in capsys.readouterr().err


def test_requests_name_adapters_in_llama_cpps_form(server: Server) -> None:
    listed = httpx.get(f"{server.url}/lora-adapters", params={"model": "base"}).json()
    assert [(a["id"], a["name"]) for a in listed] == list(
        enumerate(["narrow", "pirate", "poet", "umpire", "warden", "zealot"])
    )
    pirate = text(server, "base:pirate")
    assert text(server, "base", lora=[{"id": 1, "scale": 1.0}]) == pirate
    assert text(server, "base", lora=[{"id": "pirate"}]) == pirate
    base = text(server, "base")
    assert text(server, "base", lora=[]) == base
    assert text(server, "base", lora=[{"id": 1, "scale": 0}]) == base
    assert text(server, "base:pirate", lora=[{"id": "pirate", "scale": 0}]) == base
    assert text(server, "base:pirate", lora=[{"id": "poet"}]) not in {pirate, base}


def test_an_activated_adapter_applies_from_its_last_invocation_on(server: Server) -> None:
    """The bytes ``@!`` invoke it."""
    story = "Here it begins, " * 20
    base, umpired = text(server, "base", prompt=story), text(server, "base:umpire", prompt=story)
    assert umpired == base  # it was not invoked
    for stream in (False, True):
        said = ask(server, "base:umpire", prompt=story, stream=stream).headers
        assert said["x-dragoman-ignored"] == "adapter umpire (not invoked)"
    prompt = story + "@! not here, @!"
    assert text(server, "base:umpire", prompt=prompt) != text(server, "base", prompt=prompt)
    invoked = ask(server, "base:umpire", prompt=story + "@! again")
    assert "x-dragoman-ignored" not in invoked.headers
    usage = invoked.json()["usage"]
    assert usage["prompt_tokens_details"]["cached_tokens"] >= len(story)
    both = [{"id": "umpire"}, {"id": "pirate"}]
    with_pirate = text(server, "base", prompt=prompt, lora=both)
    assert with_pirate not in {
        text(server, "base:pirate", prompt=prompt),
        text(server, "base:umpire", prompt=prompt),
    }
    refused = ask(server, "base:umpire", lora=[{"id": "warden"}])
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == "lora"


def test_a_prefix_is_never_shared_between_a_model_and_its_adapters(server: Server) -> None:
    prompt = "Only here, " * 20
    for model in ("base", "base:pirate", "base:poet"):
        cached = [
            ask(server, model, prompt=prompt).json()["usage"]["prompt_tokens_details"][
                "cached_tokens"
            ]
            for _ in range(2)
        ]
        assert cached[0] < 10  # other prompts begin with the same few tokens
        assert cached[1] > 100


@pytest.mark.parametrize(
    ("model", "fields", "status", "param", "said"),
    [
        ("base", {"lora": [{"id": 7}]}, 400, "lora[0]", "has no adapter 7"),
        ("base", {"lora": [{"id": 1}, {"id": "x"}]}, 400, "lora[1]", "has no adapter 'x'.*pirate"),
        ("merged", {"lora": [{"id": "x"}]}, 400, "lora[0]", "It has none."),
        ("base", {"lora": [{"scale": 1.0}]}, 400, "lora[0].id", "required"),
        ("base", {"lora": [{"id": 1, "scale": 1e9}]}, 400, "lora[0].scale", "100"),
        ("base:nothing", {}, 404, "model", "base:p"),
        ("base:narrow", {}, 503, None, "Adapter 'narrow' cannot be used: .*shape"),
    ],
)
def test_what_cannot_be_applied_is_said(
    server: Server, model: str, fields: dict[str, Any], status: int, param: str | None, said: str
) -> None:
    answer = ask(server, model, **fields)
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert error["param"] == param
    assert re.search(said, error["message"]), error["message"]
    assert text(server, "base:pirate")


def test_an_adapter_that_llama_cpp_does_not_load_is_listed_as_broken_from_then_on(
    server: Server, models: Path
) -> None:
    def listed() -> tuple[str, str | None]:
        entry = httpx.get(f"{server.url}/v1/models/base:zealot").json()
        return entry["state"], entry["reason"]

    assert text(server, "base")
    assert listed() == ("ready", None)
    refused = ask(server, "base:zealot")
    assert refused.status_code == 503
    state, reason = listed()
    assert state == "failed"
    assert str(reason) in refused.json()["error"]["message"]
    shutil.copy(models / "pirate.gguf", models / "base-zealot.gguf")
    assert text(server, "base:zealot") == text(server, "base:pirate")
    assert listed() == ("ready", None)


def test_the_command_lists_loads_and_drops_adapters(
    server: Server, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def adapters(*words: str | Path) -> str:
        with pytest.raises(SystemExit) as ended:
            main(["adapters", *map(str, words), "--url", server.url])
        said = capsys.readouterr()
        return said.out if not ended.value.code else f"{ended.value.code}: {said.err}"

    late = models / "later" / "late.gguf"
    assert adapters("load", "base:cli", late) == "base:cli is served\n"
    assert adapters("load", "merged:cli", "later/late.gguf") == "merged:cli is served\n"
    assert text(server, "base:cli") != text(server, "base")
    listed = [line.split() for line in adapters("list", "base").splitlines()[1:]]
    assert ["base:cli", "late.gguf", "ready"] in listed
    assert all(line[0].startswith("base:") for line in listed)
    assert "merged:cli" in adapters("list")
    assert adapters("list", "merged:cli").count("merged:cli") == 1
    assert "has an adapter 'cli' already" in adapters("load", "base:cli", late)
    assert "has no file 'nothing.gguf'" in adapters("load", "base:x", "nothing.gguf")
    assert adapters("load", "base", late).startswith("1: dragoman: give a name and a file")
    assert adapters("drop").startswith("1: dragoman: name an adapter")
    assert "base:nothing" in adapters("drop", "base:nothing")
    for name in ("base:cli", "merged:cli"):
        assert adapters("drop", name) == f"{name} is not served any more\n"
    assert "cli" not in adapters("list")
    assert adapters("list", "merged") == "no adapters\n"


def test_adapters_come_and_go_while_the_server_runs(server: Server) -> None:
    path = "/v1/load_lora_adapter"
    loaded = post(server, path, lora_name="l", lora_path="later/late.gguf", base_model_name="base")
    assert loaded.status_code == 200, loaded.text
    late = text(server, "base:l")
    assert late != text(server, "base")
    again = post(server, path, lora_name="l", lora_path="pirate.gguf", model="base")
    assert (again.status_code, again.json()["error"]["param"]) == (400, "lora_name")
    assert post(server, "/v1/unload_lora_adapter", lora_name="base:l").status_code == 200
    assert ask(server, "base:l").status_code == 404
    gone = post(server, "/v1/unload_lora_adapter", lora_name="base:l")
    assert (gone.status_code, gone.json()["error"]["param"]) == (404, "lora_name")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"lora_name": "x", "lora_path": "base-narrow.gguf"}, "lora_path"),
        ({"lora_name": "x", "lora_path": "base.gguf"}, "lora_path"),
        ({"lora_name": "x", "lora_path": "../outside.gguf"}, "lora_path"),
        ({"lora_name": "x", "lora_path": "/etc/passwd"}, "lora_path"),
        ({"lora_name": "a:b", "lora_path": "pirate.gguf"}, "lora_name"),
        ({"lora_path": "pirate.gguf"}, "lora_name"),
    ],
)
def test_a_file_that_is_no_adapter_of_the_model_is_not_loaded(
    server: Server, body: dict[str, Any], param: str
) -> None:
    answer = post(server, "/v1/load_lora_adapter", base_model_name="base", **body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param), answer.text
    assert ask(server, "base:x").status_code == 404


def test_an_adapter_that_is_not_there_is_named(server: Server) -> None:
    named = {"base_model_name": "base", "lora_name": "x", "lora_path": "loras/nope.gguf"}
    answer = post(server, "/v1/load_lora_adapter", **named)
    assert answer.status_code == 400
    expected = "lora_path: the models folder has no file 'loras/nope.gguf'."
    assert answer.json()["error"]["message"] == expected
