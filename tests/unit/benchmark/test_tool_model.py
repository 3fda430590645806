"""The model of an agent's session is the test model but for its template, which writes tools."""

from __future__ import annotations

from pathlib import Path

import gguf
import jinja2
import pytest

from tests.benchmark.tool_model import with_tools
from tests.tiny_models import write_tiny_model

pytestmark = pytest.mark.fast


def test_the_copy_has_another_template_and_nothing_else(tmp_path: Path) -> None:
    model = write_tiny_model(tmp_path / "tiny.gguf", "full attention", chat_template="old")
    copy = with_tools(model, tmp_path / "cache")
    before, after = gguf.GGUFReader(model), gguf.GGUFReader(copy)
    assert "<tool_call>" in after.fields[gguf.Keys.Tokenizer.CHAT_TEMPLATE].contents()
    assert {tensor.name: tensor.data.tobytes() for tensor in before.tensors} == {
        tensor.name: tensor.data.tobytes() for tensor in after.tensors
    }
    for name in before.fields.keys() - {gguf.Keys.Tokenizer.CHAT_TEMPLATE}:
        # The file's own counters are those of its writer.
        if not name.startswith("GGUF."):
            assert after.fields[name].contents() == before.fields[name].contents()


def test_it_is_made_once(tmp_path: Path) -> None:
    model = write_tiny_model(tmp_path / "tiny.gguf", "full attention")
    made = with_tools(model, tmp_path / "cache")
    written = made.stat().st_mtime_ns
    assert with_tools(model, tmp_path / "cache").stat().st_mtime_ns == written


def test_all_that_a_session_says_is_in_the_prompt(tmp_path: Path) -> None:
    model = write_tiny_model(tmp_path / "tiny.gguf", "full attention")
    field = gguf.GGUFReader(with_tools(model, tmp_path)).fields[gguf.Keys.Tokenizer.CHAT_TEMPLATE]
    call = {"function": {"name": "tool_7", "arguments": {"path": "argued"}}}
    prompt = (
        jinja2.Environment()
        .from_string(field.contents())
        .render(
            messages=[
                {"role": "system", "content": "ruled"},
                {"role": "user", "content": "asked"},
                {"role": "assistant", "content": "said", "tool_calls": [call]},
                {"role": "tool", "content": "told"},
                {"role": "system", "content": "noted"},
            ],
            tools=[{"type": "function", "function": {"name": "offered"}}],
            add_generation_prompt=True,
        )
    )
    places = [
        prompt.index(word)
        for word in ("ruled", "offered", "asked", "said", "tool_7", "argued", "told", "noted")
    ]
    assert places == sorted(places)
    assert prompt.endswith("<|im_start|>assistant\n")
