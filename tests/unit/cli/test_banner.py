"""The message when the server is ready."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import msgspec
import pytest

from server.cli.banner import banner
from server.core.model_info import ModelEntry
from server.core.settings import Settings
from tests.api.fakes import model_info

URL = "http://127.0.0.1:8000"


def entry(
    model_id: str, state: str = "ready", reason: str | None = None, **facts: Any
) -> ModelEntry:
    info = msgspec.structs.replace(model_info(model_id), **facts) if state == "ready" else None
    return ModelEntry(
        id=model_id,
        path=f"/models/{model_id}.gguf",
        created=0,
        state=state,  # type: ignore[arg-type]
        reason=reason,
        info=info,
        aliases=[],
    )


def request_of(text: str) -> tuple[list[str], dict[str, Any]]:
    """The curl command of a banner, and its body."""
    command = shlex.split(text[text.index("curl ") :].replace("\\\n", " "))
    return command, json.loads(command[command.index("-d") + 1])


def test_it_tells_where_each_fact_about_a_model_came_from() -> None:
    model = entry(
        "m",
        kind="instruct",
        kind_reasons=["its end ends a turn", "score 5"],
        quantization="Q4_1",
        parameters=134_515_008,
        context=8192,
        context_source="trained for",
        template_source="gguf",
        threads=2,
    )
    text = banner(URL, Settings(), [model])
    assert text.startswith("dragoman ")
    assert f" at {URL}\n" in text
    for fact in (
        "instruct (its end ends a turn; score 5)",
        "Q4_1, 135 million parameters",
        "8192 tokens (trained for)",
        "gguf",
    ):
        assert fact in text
    assert "safe mode" not in text


def test_safe_mode_and_warnings_are_reported() -> None:
    text = banner(URL, Settings(), [entry("m", safe_mode=True, warnings=["a guess"])])
    assert "safe mode" in text
    assert "a guess" in text


def test_a_model_that_sees_images_is_told_from_others() -> None:
    assert "images    read (gemma3)" in banner(URL, Settings(), [entry("m", projector="gemma3")])
    assert "images    read" not in banner(URL, Settings(), [entry("m")])


def test_it_is_said_whether_answers_repeat() -> None:
    assert "answers   repeat" in banner(URL, Settings(), [entry("m")])
    text = banner(URL, Settings(), [entry("m", declined="llama.cpp's own code computes x")])
    assert "answers   may differ in rounding: llama.cpp's own code computes x\n" in text
    assert "answers   " not in banner(URL, Settings(), [entry("m", generates=False)])


def test_a_draft_model_is_named() -> None:
    assert "drafts    by small.gguf" in banner(URL, Settings(), [entry("m", draft="small.gguf")])
    assert "drafts" not in banner(URL, Settings(), [entry("m")])


def test_the_page_for_browsers_is_named_where_they_can_reach_it() -> None:
    assert f"\npage   {URL}/ in a browser" in banner(URL, Settings(), [entry("m")])
    assert "page " not in banner("unix:/run/d", Settings(), [entry("m")])


def test_it_tells_who_may_use_the_server() -> None:
    def keys(**settings: Any) -> str:
        text = banner(URL, Settings(**settings), [entry("m")])
        return next(line for line in text.splitlines() if line.startswith("keys"))

    assert "only this machine" in keys()
    assert "needs the API key" in keys(api_keys=["secret"])
    assert "one of 2 API keys" in keys(api_keys=["secret", "other"])
    assert "secret" not in banner(URL, Settings(api_keys=["secret"]), [entry("m")])
    assert "NONE" in keys(host="0.0.0.0", allow_unauthenticated=True)


def test_a_guard_that_is_off_is_said_loudly() -> None:
    assert "guard  on" in banner(URL, Settings(), [entry("m")])
    assert "guard  OFF:" in banner(URL, Settings(guard=False), [entry("m", guard=False)])
    mixed = banner(URL, Settings(), [entry("safe"), entry("loose", guard=False)])
    assert "guard  OFF for loose:" in mixed


def test_models_on_demand_and_broken_ones_are_listed() -> None:
    models = [entry("a"), entry("b", "unloaded"), entry("c", "failed", "it is too short")]
    text = banner(URL, Settings(), models)
    assert "Loaded on first use:\n  b\n" in text
    assert "Not served:\n  c: it is too short\n" in text


def test_the_first_request_can_be_pasted() -> None:
    command, body = request_of(banner(URL, Settings(), [entry("m'odel")]))
    assert command[1] == f"{URL}/v1/chat/completions"
    assert body["model"] == "m'odel"
    assert body["messages"][0]["role"] == "user"


def test_a_base_model_is_asked_to_continue() -> None:
    command, body = request_of(banner(URL, Settings(), [entry("m", kind="base")]))
    assert command[1] == f"{URL}/v1/completions"
    assert body["prompt"] == "The cat sat on the"


def test_a_model_made_for_embeddings_is_asked_for_one() -> None:
    text = banner(URL, Settings(), [entry("m", kind="base", generates=False)])
    command, body = request_of(text)
    assert command[1] == f"{URL}/v1/embeddings"
    assert body == {"model": "m", "input": "The cat sat on the mat."}
    assert "made for  embeddings" in text
    assert "kind" not in text
    assert "template" not in text


@pytest.mark.parametrize("keys", [{"api_keys": ["secret"]}, {"keys_file": Path("keys.toml")}])
def test_the_first_request_carries_a_key_where_one_is_needed(keys: dict[str, Any]) -> None:
    command, _ = request_of(banner(URL, Settings(**keys), [entry("m")]))
    assert "authorization: Bearer $DRAGOMAN_API_KEY" in command


def test_the_first_request_trusts_the_certificate_of_the_server(tmp_path: Path) -> None:
    files = {name: tmp_path / f"{name} of mine.pem" for name in ("tls_certificate", "tls_key")}
    for file in files.values():
        file.touch()
    command, _ = request_of(banner(URL, Settings(**files), [entry("m")]))  # type: ignore[arg-type]
    assert command[command.index("--cacert") + 1] == str(files["tls_certificate"])
    assert "--cacert" not in banner(URL, Settings(), [entry("m")])
    command, _ = request_of(banner("unix:/run/d", Settings(**files), [entry("m")]))  # type: ignore[arg-type]
    assert "https://localhost/v1/chat/completions" in command


def test_without_a_model_it_says_how_to_get_one() -> None:
    text = banner(URL, Settings(), [])
    assert "dragoman pull" in text
    assert "curl" not in text
