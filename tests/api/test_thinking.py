"""Whether and how much to think, in the words of every API, in every family that chats."""

from __future__ import annotations

from typing import Any

import httpx
import msgspec
import pytest

from server.core.request import ChatPrompt, Constraint
from tests.api.fakes import FakePool
from tests.api.test_other_servers import MESSAGES, RESPONSES, body_of
from tests.api.wire import CHAT, assert_error

FAMILIES = [CHAT, RESPONSES, MESSAGES]
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}}


async def answered(
    http: httpx.AsyncClient, pool: FakePool, path: str, fields: dict[str, Any]
) -> tuple[ChatPrompt, str | None]:
    """The prompt of a request with ``fields``, and what of it was ignored."""
    response = await http.post(path, json=body_of(path, **fields))
    assert response.status_code == 200, response.text
    prompt = pool.client.requests[-1].prompt
    assert isinstance(prompt, ChatPrompt)
    return prompt, response.headers.get("x-dragoman-ignored")


def reads(pool: FakePool, *variables: str) -> None:
    """The template of the model reads ``variables``."""
    pool.client.info = msgspec.structs.replace(pool.client.info, template_variables=list(variables))


@pytest.mark.parametrize("path", FAMILIES)
@pytest.mark.parametrize(
    ("fields", "variables"),
    [
        ({"think": False}, {"enable_thinking": False}),
        ({"options": {"think": False}}, {"enable_thinking": False}),
        ({"think": "high"}, {"reasoning_effort": "high"}),
        ({"enable_thinking": True}, {"enable_thinking": True}),
        ({"reasoning_effort": "low"}, {"reasoning_effort": "low"}),
        ({"chat_template_kwargs": {"enable_thinking": False}}, {"enable_thinking": False}),
        ({"thinking": {"type": "disabled"}}, {"enable_thinking": False}),
        ({"thinking": {"type": "disabled", "enabled": "off"}}, {"enable_thinking": False}),
        ({"thinking": {"type": "Off"}}, {"enable_thinking": False}),
        ({"thinking": False}, {"enable_thinking": False}),
        ({"thinking": "enabled"}, {"enable_thinking": True}),
        ({"reasoning": {"enabled": False}}, {"enable_thinking": False}),
        ({"reasoning": {"effort": "low"}}, {"reasoning_effort": "low"}),
        ({"reasoning": "low"}, {"reasoning_effort": "low"}),
        ({"reasoning_effort": "off"}, {"reasoning_effort": "none"}),
        ({"reasoning": {"effort": "auto"}}, {}),
        ({"reasoning": False}, {"enable_thinking": False}),
        ({"reasoning_budget": 0}, {"enable_thinking": False}),
    ],
)
async def test_every_word_reaches_the_template(
    http: httpx.AsyncClient,
    pool: FakePool,
    path: str,
    fields: dict[str, Any],
    variables: dict[str, Any],
) -> None:
    reads(pool, "enable_thinking", "reasoning_effort")
    prompt, ignored = await answered(http, pool, path, fields)
    assert prompt.template_kwargs.items() >= variables.items()
    assert ignored is None


@pytest.mark.parametrize("path", FAMILIES)
@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"think": False}, "think"),
        ({"enable_thinking": False}, "enable_thinking"),
        ({"reasoning_effort": "low"}, "reasoning_effort"),
        (
            {"chat_template_kwargs": {"mood": "x", "enable_thinking": True, "gone": None}},
            "chat_template_kwargs.mood, chat_template_kwargs.enable_thinking",
        ),
    ],
)
async def test_a_word_that_the_template_does_not_read_is_named(
    http: httpx.AsyncClient, pool: FakePool, path: str, fields: dict[str, Any], named: str
) -> None:
    reads(pool)
    _, ignored = await answered(http, pool, path, fields)
    assert sorted((ignored or "").split(", ")) == sorted(named.split(", "))


@pytest.mark.parametrize(
    ("path", "fields", "param"),
    [
        (CHAT, {"enable_thinking": True, "think": False}, "think"),
        (
            CHAT,
            {"enable_thinking": True, "chat_template_kwargs": {"enable_thinking": False}},
            "enable_thinking",
        ),
        (
            RESPONSES,
            {"reasoning": {"effort": "low"}, "reasoning_effort": "high"},
            "reasoning.effort",
        ),
    ],
)
async def test_words_that_contradict_each_other_are_refused(
    http: httpx.AsyncClient, path: str, fields: dict[str, Any], param: str
) -> None:
    assert_error(await http.post(path, json=body_of(path, **fields)), 400, param=param)


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        (RESPONSES, {"text": {"format": {"type": "json_object", "schema": SCHEMA}}}),
        (RESPONSES, {"text": {"format": {"type": "json_object", "response_schema": SCHEMA}}}),
        (RESPONSES, {"text": {"format": {"type": "json_schema", "response_schema": SCHEMA}}}),
        (CHAT, {"response_format": {"type": "json_schema", "response_schema": SCHEMA}}),
        (MESSAGES, {"output_format": {"type": "json_schema", "schema": SCHEMA}}),
        (MESSAGES, {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}}),
    ],
)
async def test_a_schema_is_found_where_clients_put_it(
    http: httpx.AsyncClient, pool: FakePool, path: str, fields: dict[str, Any]
) -> None:
    _, ignored = await answered(http, pool, path, fields)
    expected = Constraint.of("json_schema", SCHEMA, strict=False)
    assert pool.client.requests[-1].constraint == expected
    assert ignored is None


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"text": {"format": {"type": "text", "grammar": "x"}}}, "text.format.grammar"),
        ({"reasoning": {"exclude": True}}, "reasoning.exclude"),
    ],
)
async def test_what_stands_deep_in_a_response_is_named_too(
    http: httpx.AsyncClient, pool: FakePool, fields: dict[str, Any], named: str
) -> None:
    _, ignored = await answered(http, pool, RESPONSES, fields)
    assert ignored == named


async def test_no_alternatives_need_no_logprobs(http: httpx.AsyncClient, pool: FakePool) -> None:
    await answered(http, pool, CHAT, {"top_logprobs": 0})
    assert pool.client.requests[-1].logprobs is None
