"""What of a request stays the same from turn to turn."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.cluster.affinity.prompt_blocks import BLOCK_BYTES, MOST_BLOCKS, OPENING_BLOCKS
from server.cluster.affinity.request_affinity import Affinity, request_affinity
from server.cluster.affinity.session_keys import SESSION_HEADERS

Body = dict[str, Any]

TOOLS = [
    {"type": "function", "function": {"name": name, "parameters": {"type": "object"}}}
    for name in ("read", "write")
]
KEY = {b"authorization": b"Bearer one"}


def affinity(body: Body, headers: dict[bytes, bytes] = KEY) -> Affinity:
    return request_affinity(headers, body)


def chat(turns: int, *, system: str = "You help.", first: str = "Begin.") -> Body:
    said = [
        {"role": ("user", "assistant")[at % 2], "content": first if at == 0 else f"Turn {at}."}
        for at in range(turns)
    ]
    return {
        "model": "m",
        "tools": TOOLS,
        "messages": [{"role": "system", "content": system}, *said],
    }


def messages(turns: int) -> Body:
    """As Claude Code has it: parts in one turn, text in the next, and marks that move on."""
    said: list[Body] = []
    for at in range(turns):
        part: Body = {"type": "text", "text": f"Turn {at}."}
        if at == turns - 1:
            part["cache_control"] = {"type": "ephemeral"}
        role = ("user", "assistant")[at % 2]
        said.append({"role": role, "content": [part] if at >= turns - 2 else part["text"]})
    billing = f"x-anthropic-billing-header: cc_version=2.1.328.{turns}; cch={turns};"
    system = [{"type": "text", "text": billing}, {"type": "text", "text": "You help."}]
    return {"model": "m", "system": system, "tools": TOOLS, "messages": said, "max_tokens": turns}


def responses(turns: int) -> Body:
    """As Codex has it: the system prompt and calls are items, and what comes back has got ids."""
    said: list[Body] = [
        {"type": "message", "role": "developer", "content": "You help."},
        {"role": "user", "content": [{"type": "input_text", "text": "Begin."}]},
    ]
    for at in range(turns):
        call = {"type": "function_call", "name": "read", "arguments": "{}", "call_id": f"c{at}"}
        if at < turns - 1:
            call["id"] = f"fc_{turns}"
        output = {"type": "function_call_output", "call_id": f"c{at}", "output": "x"}
        said += [call, output]
    return {"model": "m", "instructions": "Be brief.", "input": said, "tools": TOOLS}


@pytest.mark.parametrize("name", SESSION_HEADERS)
def test_a_session_header_decides_whatever_the_body_says(name: bytes) -> None:
    headers = {**KEY, name: b"session 1"}
    first = affinity(chat(1), headers)
    assert len(first.blocks) == 1
    assert affinity({"prompt_cache_key": "k", **chat(3, first="Other.")}, headers) == first
    assert affinity({}, headers) == first
    assert affinity(chat(1), {**KEY, name: b"session 2"}) != first


@pytest.mark.parametrize(
    "field",
    [
        {"prompt_cache_key": "k"},
        {"metadata": {"user_id": json.dumps({"device_id": "d", "session_id": "s"})}},
    ],
)
def test_a_session_that_the_body_names_decides_before_its_prompt(field: Body) -> None:
    first = affinity({**chat(1), **field})
    assert len(first.blocks) == 1
    assert affinity({**chat(3, first="Other."), **field}) == first
    assert affinity({"previous_response_id": "resp_1", **field}) == first


@pytest.mark.parametrize("user", ["someone", "{broken", '{"session_id": 5}', '["session_id"]', 7])
def test_a_user_who_is_no_session_leaves_it_to_the_prompt(user: object) -> None:
    assert affinity({**chat(1), "metadata": {"user_id": user}}) == affinity(chat(1))


@pytest.mark.parametrize(
    "field",
    [{"previous_response_id": "r_1"}, {"conversation": "r_1"}, {"conversation": {"id": "r_1"}}],
)
def test_a_stored_id_comes_before_the_prompt_and_is_told(field: Body) -> None:
    found = affinity({"input": "Go on.", **field})
    assert found.stored == "r_1"
    assert found == affinity({"input": "Something else.", **field})
    assert found.blocks != affinity({"input": "Go on."}).blocks


@pytest.mark.parametrize("session", [chat, messages, responses])
@pytest.mark.parametrize("turns", [2, 3, 4, 9])
def test_every_turn_continues_the_chain_of_the_turn_before(
    session: Callable[[int], Body], turns: int
) -> None:
    before, now = affinity(session(turns - 1)), affinity(session(turns))
    assert len(now.blocks) > len(before.blocks)
    assert now.blocks[: len(before.blocks)] == before.blocks


@pytest.mark.parametrize("prompt", ["text", "ids"])
def test_a_prompt_without_turns_is_one_chain_of_its_own(prompt: str) -> None:
    text = "abcdefgh" * 1000
    whole: Any = text if prompt == "text" else list(range(8000))
    before, now = affinity({"prompt": whole[:4000]}), affinity({"prompt": whole})
    assert before.blocks[:-1] == now.blocks[: len(before.blocks) - 1] != ()


def test_sessions_with_one_system_prompt_are_apart_from_their_first_question_on() -> None:
    long = "You help. " * 5000
    one = affinity(chat(5, system=long, first="One."))
    two = affinity(chat(5, system=long, first="Two."))
    assert not {*one.blocks} & {*two.blocks}
    assert one.blocks[0] != affinity(chat(5, system="Else.", first="One.")).blocks[0]


def test_questions_about_one_long_document_begin_alike() -> None:
    document = "x" * (OPENING_BLOCKS + 2) * BLOCK_BYTES
    one = affinity({"messages": [{"role": "user", "content": document + "Why?"}]})
    two = affinity({"messages": [{"role": "user", "content": document + "When?"}]})
    assert one.blocks[:-1] == two.blocks[:-1] != ()
    assert one.blocks[-1] != two.blocks[-1]


def test_api_keys_have_no_hash_in_common() -> None:
    long = chat(5, system="You help. " * 500)
    for body in (long, {"prompt_cache_key": "k"}, {"previous_response_id": "resp_1"}):
        one = affinity(body, {b"authorization": b"Bearer one"})
        for headers in ({b"x-api-key": b"one"}, {b"authorization": b"Bearer two"}, {}):
            other = affinity(body, headers)
            assert one.blocks
            assert not {*one.blocks} & {*other.blocks}


def test_models_share_no_blocks() -> None:
    assert affinity(chat(1)).blocks != affinity({**chat(1), "model": "other"}).blocks


def test_only_the_beginning_of_a_very_long_prompt_is_hashed() -> None:
    found = affinity({"prompt": "x" * (MOST_BLOCKS + 5) * BLOCK_BYTES})
    assert len(found.blocks) == MOST_BLOCKS


deep: list[Any] = []
for _ in range(5000):
    deep = [deep]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"model": "m", "tools": TOOLS, "system": "You help."},
        {"messages": []},
        {"messages": 5, "input": {}},
        {"input": ["one", "two"]},
        {"messages": [5, None, []]},
        {"messages": [], "prompt": ""},
        {"query": "q", "documents": ["d"]},
        {"prompt_cache_key": "\ud800"},
        {"messages": [{"role": "user", "content": "\ud800"}]},
        {"messages": [{"role": "user", "content": deep}]},
    ],
)
def test_a_body_without_a_prompt_that_can_be_read_belongs_nowhere(body: Body) -> None:
    assert affinity(body) == Affinity()


@pytest.mark.parametrize(
    "message",
    [
        {"role": ["user"], "content": {"a": 1}},
        {"type": {"a": []}, "content": [{"type": ["text"]}, {"type": "text", "text": 5}]},
        {"role": "user", "content": [{"type": "text"}], "number": 10**30},
    ],
)
def test_a_wrong_message_is_no_reason_to_fail(message: Body) -> None:
    assert affinity({"messages": [message]}).blocks


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=10,
)


def shuffled(value: Any, backwards: bool) -> Any:
    """The same JSON with the keys of its objects in another order."""
    if isinstance(value, list):
        return [shuffled(each, backwards) for each in value]
    if not isinstance(value, dict):
        return value
    items = [(name, shuffled(each, backwards)) for name, each in value.items()]
    return dict(reversed(items) if backwards else items)


@given(st.lists(json_values, min_size=1, max_size=3), st.lists(st.text(), min_size=1, max_size=4))
def test_the_order_of_keys_does_not_matter(tools: list[Any], texts: list[str]) -> None:
    body = {
        "tools": tools,
        "messages": [{"role": "user", "content": text, "extra": tools} for text in texts],
    }
    assert affinity(shuffled(body, True)) == affinity(body)


@given(st.lists(st.text(max_size=3000), min_size=2, max_size=5), st.data())
def test_a_conversation_has_in_common_what_it_begins_with(
    texts: list[str], data: st.DataObject
) -> None:
    changed = data.draw(st.integers(0, len(texts) - 1))
    other = [*texts[:changed], texts[changed] + "!", *texts[changed + 1 :]]
    roles = ["user", *["assistant"] * len(texts)]
    one, two, before = (
        affinity(
            {
                "messages": [
                    {"role": role, "content": text} for role, text in zip(roles, each, strict=False)
                ]
            }
        ).blocks
        for each in (texts, other, texts[:changed])
    )
    same = next(at for at, pair in enumerate(zip(one, two, strict=False)) if len({*pair}) > 1)
    assert same >= len(before)
    assert not {*one[same:]} & {*two[same:]}
