"""`dragoman render` and `dragoman parse`."""

from __future__ import annotations

import io
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from server.cli import render as render_module
from server.core.native_prompt import RenderedPrompt, Segment
from server.core.request import ChatPrompt, Prompt, TextPrompt, TokensPrompt
from server.core.settings import Settings
from server.library.registry import LibraryModel
from tests.unit.cli.conftest import Run
from tests.unit.library.random_models import write_model

PLAIN = (
    "{{ bos_token }}{% for message in messages %}"
    "<|{{ message.role }}|>\n{{ message.content }}{{ eos_token }}\n"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
THINKING = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% if message.reasoning_content %}<think>\n{{ message.reasoning_content }}\n</think>\n\n"
    "{% endif %}{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
)
USER = {"role": "user", "content": " Zürich? "}

Save = Callable[[str, Any], Path]
Parse = Callable[..., dict[str, Any]]


@pytest.fixture
def save(folder: Path) -> Save:
    """Writes a file, as JSON unless it is text already."""

    def write(name: str, content: Any) -> Path:
        path = folder / name
        path.write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")
        return path

    return write


def test_a_bare_template_is_rendered_exactly_without_a_final_newline(run: Run, save: Save) -> None:
    template, messages = save("t.jinja", PLAIN), save("m.json", [USER])
    arguments = ("render", "--template", template, "--messages", messages)
    result = run(*arguments, "--bos", "<s>", "--eos", "</s>", "--no-generation-prompt")
    assert result.out == "<s><|user|>\n Zürich? </s>\n"
    assert run(*arguments).out == "<|user|>\n Zürich? \n<|assistant|>\n"


def test_messages_are_normalised_unless_raw(run: Run, save: Save) -> None:
    template = save("t.jinja", PLAIN)
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    messages = save("m.json", [{"role": "user", "content": parts}])
    arguments = ("render", "--template", template, "--messages", messages)
    assert run(*arguments).out == "<|user|>\na\nb\n<|assistant|>\n"
    assert run(*arguments, "--raw").out == f"<|user|>\n{parts}\n<|assistant|>\n"


def test_images_are_shown_by_a_word_where_the_template_has_no_marker(run: Run, save: Save) -> None:
    template = save("t.jinja", PLAIN)
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
    parts = [{"type": "text", "text": "a"}, image]
    messages = save("m.json", [{"role": "user", "content": parts}])
    result = run("render", "--template", template, "--messages", messages)
    assert result.out == "<|user|>\na<image>\n<|assistant|>\n"


def test_variables_reach_the_template_and_unknown_ones_are_refused(run: Run, save: Save) -> None:
    template = save("t.jinja", "{{ mood }}: " + PLAIN)
    messages = save("m.json", [USER])
    arguments = ("render", "--template", template, "--messages", messages, "--kwargs")
    assert run(*arguments, '{"mood": "good"}').out.startswith("good: <|user|>")
    unknown = run(*arguments, '{"weather": "bad"}')
    assert unknown.exit_code == 1
    assert "'weather'" in unknown.err
    assert run(*arguments, "[1]").exit_code == 2


def test_tools_reach_a_template_that_shows_them(run: Run, save: Save) -> None:
    template = save("t.jinja", "{{ tools | tojson }}" + PLAIN)
    function = {"name": "f", "description": "d", "parameters": {"type": "object"}}
    tools = save("tools.json", [{"type": "function", "function": function}])
    messages = save("m.json", [USER])
    arguments = ("render", "--template", template, "--messages", messages, "--tools", tools)
    assert '"name": "f"' in run(*arguments, "--raw").out


def test_tools_have_the_names_that_the_server_gives_the_model(
    run: Run, save: Save, parse: Parse
) -> None:
    tools = save("tools.json", [{"type": "function", "function": {"name": "fs/read"}}])
    arguments = ("--template", save("t.jinja", PLAIN), "--messages", save("m.json", [USER]))
    assert '"name":"fs_read"' in run("render", *arguments, "--tools", tools).out
    call = '<tool_call>\n{"name": "fs_read", "arguments": {}}\n</tool_call>'
    (found,) = parse(PLAIN, call, "--tools", tools)["tool_calls"]
    assert found["function"]["name"] == "fs/read"


def test_a_bare_template_gets_tools_in_words_where_it_does_not_show_how_to_call(
    run: Run, save: Save
) -> None:
    """As in the server: a template that only lists tools does not tell the model how to call."""
    template = save("t.jinja", "{% if tools %}{{ tools | tojson }}\n{% endif %}" + PLAIN)
    messages = save("m.json", [USER])
    function = {"name": "weather", "description": "Of a town", "parameters": {"type": "object"}}
    tools = save("tools.json", [{"type": "function", "function": function}])
    prompt = run("render", "--template", template, "--messages", messages, "--tools", tools).out
    assert "To call the function NAME" in prompt
    assert prompt.count('"weather"') == 1


def test_a_conversation_that_is_none_is_refused_in_words(run: Run, save: Save) -> None:
    template = save("t.jinja", PLAIN)
    for content, reason in (
        ([{"role": "pirate", "content": "arr"}], "messages[0]"),
        ({"messages": []}, "m.json"),
        ("{", "m.json"),
    ):
        result = run("render", "--template", template, "--messages", save("m.json", content))
        assert result.exit_code == 1
        assert reason in result.err
        assert result.out == ""


def test_files_that_cannot_be_read_are_named(run: Run, save: Save) -> None:
    messages = save("m.json", [USER])
    assert "none.jinja" in run("render", "--template", "none.jinja", "--messages", messages).err
    template = save("t.jinja", PLAIN)
    assert "none.json" in run("render", "--template", template, "--messages", "none.json").err


def test_something_to_render_with_is_needed(run: Run, save: Save) -> None:
    messages = save("m.json", [USER])
    assert run("render", "--messages", messages).exit_code == 2
    template = save("t.jinja", PLAIN)
    result = run("render", "--messages", messages, "--template", template, "--tokens")
    assert result.exit_code == 2
    assert "--model" in result.err


def given_template(model: LibraryModel) -> str | None:
    """The template from the command line, while it exists."""
    family, folders = model.settings.family, model.settings.template_dirs
    return Path(folders[-1], f"{family}.jinja").read_text() if family else None


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> list[tuple[LibraryModel, Prompt, str | None]]:
    """A vocabulary worker without a process; records its model, prompts and given template."""
    seen: list[tuple[LibraryModel, Prompt, str | None]] = []

    class Client:
        def __init__(self, model: LibraryModel) -> None:
            self._model = model

        async def render(self, prompt: Prompt) -> RenderedPrompt:
            seen.append((self._model, prompt, given_template(self._model)))
            match prompt:
                case TokensPrompt(ids=ids):
                    text = f"<{ids[0]}>"
                case TextPrompt(text=given):
                    text = given
                case ChatPrompt():
                    text = "rendered"
            segment = Segment(text=text, ids=[7], control=False, source="user")
            return RenderedPrompt(prompt=text, tokens=[7], segments=[segment])

    @asynccontextmanager
    async def open_worker(_: Settings, model: LibraryModel) -> AsyncIterator[Client]:
        yield Client(model)

    monkeypatch.setattr(render_module, "vocabulary_worker", open_worker)
    return seen


Seen = list[tuple[LibraryModel, Prompt, str | None]]


def test_a_model_renders_in_its_worker(run: Run, save: Save, folder: Path, worker: Seen) -> None:
    model = write_model(folder / "m.gguf")
    messages = save("m.json", [USER])
    assert run("render", "--model", model, "--messages", messages).out == "rendered"
    ((_, prompt, template),) = worker
    assert isinstance(prompt, ChatPrompt)
    assert prompt.messages[0].content == USER["content"]
    assert template is None


def test_tokens_are_one_json_object(run: Run, save: Save, folder: Path, worker: Seen) -> None:
    model = write_model(folder / "m.gguf")
    result = run("render", "--model", model, "--messages", save("m.json", [USER]), "--tokens")
    answer = json.loads(result.out)
    assert answer["prompt"] == "rendered"
    assert answer["tokens"] == [7]
    assert answer["segments"] == [
        {"text": "rendered", "ids": [7], "control": False, "source": "user"}
    ]


def test_images_are_not_counted_without_weights(
    run: Run, save: Save, folder: Path, worker: Seen
) -> None:
    model = write_model(folder / "m.gguf")
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
    messages = save("m.json", [{"role": "user", "content": [image]}])
    result = run("render", "--model", model, "--messages", messages, "--tokens")
    assert result.exit_code == 1
    assert "cannot count images" in result.err


def test_a_template_replaces_the_models_own(
    run: Run, save: Save, folder: Path, worker: Seen
) -> None:
    model = write_model(folder / "m.gguf")
    template, messages = save("t.jinja", PLAIN), save("m.json", [USER])
    run("render", "--model", model, "--template", template, "--messages", messages)
    ((_, _, used),) = worker
    assert used == PLAIN


def test_raw_with_a_model_uses_its_template_and_its_bos(
    run: Run, save: Save, folder: Path, worker: Seen
) -> None:
    model = write_model(
        folder / "m.gguf", tokenizer__chat_template=PLAIN, tokenizer__ggml__bos_token_id=1
    )
    result = run("render", "--model", model, "--messages", save("m.json", [USER]), "--raw")
    assert result.out == "<1><|user|>\n Zürich? \n<|assistant|>\n"


@pytest.fixture
def parse(run: Run, save: Save, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """Runs ``parse`` on a reply."""

    def command(template: str, reply: str, *more: str | Path) -> dict[str, Any]:
        stdin = io.TextIOWrapper(io.BytesIO(reply.encode()), encoding="utf-8")
        monkeypatch.setattr("sys.stdin", stdin)
        result = run("parse", "--template", save("t.jinja", template), *more)
        assert result.exit_code == 0, result.err
        message: dict[str, Any] = json.loads(result.out)
        return message

    return command


def test_a_plain_reply_is_content(parse: Parse) -> None:
    assert parse(PLAIN, "Hi <there>") == {"role": "assistant", "content": "Hi <there>"}


def test_reasoning_opened_by_the_prompt_is_reasoning(parse: Parse) -> None:
    expected = {"role": "assistant", "content": "So.", "reasoning_content": "hm"}
    assert parse(THINKING, "hm\n</think>\n\nSo.") == expected
    assert parse(THINKING, "<think>\nhm\n</think>\n\nSo.") == expected


def test_calls_are_found_where_the_template_knows_no_tools(parse: Parse) -> None:
    call = '<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>'
    message = parse(PLAIN, call)
    assert message["content"] is None
    (found,) = message["tool_calls"]
    assert found["type"] == "function"
    assert found["function"]["name"] == "f"
    assert json.loads(found["function"]["arguments"]) == {"a": 1}
