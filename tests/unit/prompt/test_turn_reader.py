"""What counts as the same message."""

from __future__ import annotations

import pytest

from server.core.reply_format import Calls, ReplyFormat
from server.core.request import Tool
from server.prompt.turn_reader import TurnReader
from server.reply.builtin_formats import builtin_format
from tests.unit.fake_vocabulary import FakeVocabulary

LOOK_UP = Tool(
    name="look_up",
    parameters={"type": "object", "properties": {"path": {}, "lines": {"type": "integer"}}},
)
VOCABULARY = FakeVocabulary(
    [
        ("<|im_end|>", "control"),
        ("<tool_call>", "user_defined"),
        ("</tool_call>", "user_defined"),
        ("<think>", "user_defined"),
        ("</think>", "user_defined"),
        ("[TOOL_CALLS]", "control"),
        ("[CALL_ID]", "control"),
        ("[ARGS]", "control"),
    ],
    eos="<|im_end|>",
)
HERMES = builtin_format("hermes")


def tokens(text: str) -> list[int]:
    return VOCABULARY.tokenize(text, parse_special=True)


def read(
    text: str | list[int], reply_format: ReplyFormat = HERMES, *, prefix: str = ""
) -> bytes | None:
    reader = TurnReader(VOCABULARY, reply_format)
    ids = tokens(text) if isinstance(text, str) else text
    return reader.reading([LOOK_UP], tolerant=False)(ids, prefix)


def hermes(arguments: str, before: str = "") -> str:
    call = f'{{"name": "look_up", "arguments": {arguments}}}'
    return f"{before}<tool_call>\n{call}\n</tool_call>"


@pytest.mark.parametrize(
    ("written", "rendered"),
    [
        (hermes('{"path":"a","lines":3}'), hermes('{"path": "a", "lines": 3}')),
        (hermes('{"lines": 3, "path": "a"}'), hermes('{"path": "a", "lines": 3}')),
        (hermes('{"path": "\\u00e9\\/"}'), hermes('{"path": "é/"}')),
        (hermes('{"lines": 1.0}'), hermes('{"lines": 1}')),
        (hermes('{"path": {"b": [1,2], "a": 1e2}}'), hermes('{"path": {"a": 100, "b": [1, 2]}}')),
        (
            '<tool_call>{"arguments":{"lines":3},"name":"look_up"}</tool_call>',
            hermes('{"lines": 3}'),
        ),
        ("\n\n" + hermes("{}", before="I look.\n\n\n"), hermes("{}", before="I look.\n")),
    ],
)
def test_the_same_call_however_it_is_written_is_the_same(written: str, rendered: str) -> None:
    assert read(written) == read(rendered) is not None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (hermes('{"lines": 1}'), hermes('{"lines": 2}')),
        (hermes('{"lines": 1}'), hermes('{"lines": true}')),
        (hermes('{"lines": 1}'), hermes('{"lines": "1"}')),
        (hermes('{"path": "a "}'), hermes('{"path": "a"}')),
        (hermes('{"path": [1, 2]}'), hermes('{"path": [2, 1]}')),
        (hermes("{}", before="I look."), hermes("{}", before="I see.")),
        (hermes("{}"), hermes("{}") + "\n" + hermes("{}")),
        (hermes("{}"), ""),
        ("<think>\na\n</think>\n\n" + hermes("{}"), hermes("{}")),
    ],
)
def test_another_call_or_text_is_another_message(one: str, other: str) -> None:
    assert read(one) != read(other)


def test_reasoning_that_the_prompt_opened_is_read_as_reasoning() -> None:
    whole = read("<think>\na\n</think>\n\nb")
    assert read("a</think>b", prefix="<think>\n") == whole is not None


def test_text_that_spells_what_marks_calls_is_not_read() -> None:
    spelled = [token for letter in hermes("{}") for token in tokens(letter)]
    assert read(spelled) is None


def test_a_token_that_is_no_text_is_not_read() -> None:
    assert read("Hello<|im_end|>Hello") is None


def test_ids_count_where_the_model_writes_them() -> None:
    calls = Calls(call="[TOOL_CALLS]{name}[CALL_ID]{id}[ARGS]{arguments}")
    with_ids = ReplyFormat(name="with ids", calls=calls)

    def call(id_: str, arguments: str) -> str:
        return f"[TOOL_CALLS]look_up[CALL_ID]{id_}[ARGS]{arguments}"

    written = read(call("a", '{"lines":1}'), with_ids)
    assert written == read(call("a", '{"lines": 1}'), with_ids) is not None
    assert written != read(call("b", '{"lines": 1}'), with_ids)


def test_without_a_format_all_is_content() -> None:
    reader = TurnReader(VOCABULARY, None)
    reading = reader.reading([], tolerant=False)
    assert reading(tokens("a b "), "") == reading(tokens("a b"), "") is not None
    assert reading(tokens("a b"), "") != reading(tokens("a  b"), "")


def test_arguments_nested_too_deeply_to_compare_are_compared_as_text() -> None:
    deep = f'{{"path": {"[" * 5_000}{"]" * 5_000}}}'
    assert read(hermes(deep)) == read(hermes(deep)) is not None
    assert read(hermes(deep)) != read(hermes(deep.replace(": ", ":")))
