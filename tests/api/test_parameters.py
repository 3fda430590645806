"""No parameter of OpenAI's is forgotten, and none is ignored in silence."""

from __future__ import annotations

import typing
from typing import Any

import httpx
import msgspec
import openai.types.chat
import pytest
from openai.types import completion_create_params as completion_params
from openai.types.chat import completion_create_params as chat_params
from pydantic import BaseModel

from server.api.openai.schemas.base import GenerationFields
from server.api.openai.schemas.chat_request import ChatCompletionRequest
from server.api.openai.schemas.chat_response import ChatChoice, ChatChunkChoice
from server.api.openai.schemas.completions import CompletionChoice, CompletionRequest
from tests.api.fakes import FakePool
from tests.api.wire import (
    CHAT,
    COMPLETIONS,
    assert_error,
    chat_body,
    completion_body,
)


def sdk_parameters(module: Any) -> list[str]:
    """The names in the SDK's TypedDict of a request."""
    return sorted(typing.get_type_hints(module.CompletionCreateParamsStreaming))


@pytest.mark.parametrize("name", sdk_parameters(chat_params))
def test_every_chat_parameter_of_the_sdk_is_known(name: str) -> None:
    assert name in ChatCompletionRequest.model_fields


@pytest.mark.parametrize("name", sdk_parameters(completion_params))
def test_every_completion_parameter_of_the_sdk_is_known(name: str) -> None:
    assert name in CompletionRequest.model_fields


@pytest.mark.parametrize("model", [ChatCompletionRequest, CompletionRequest])
def test_ignored_and_unsupported_parameters_exist_and_exclude_each_other(
    model: type[GenerationFields],
) -> None:
    assert model.model_fields.keys() >= model.IGNORED | model.UNSUPPORTED
    assert not model.IGNORED & model.UNSUPPORTED


IGNORED = {
    "metadata": {"a": "b"},
    "prompt_cache_key": "k",
    "prompt_cache_options": {"mode": "implicit", "ttl": "30m"},
    "prompt_cache_retention": "24h",
    "safety_identifier": "s",
    "service_tier": "auto",
    "store": True,
    "user": "u",
    "verbosity": "low",
}
UNSUPPORTED = {
    "audio": {"voice": "alloy", "format": "mp3"},
    "moderation": {"model": "omni-moderation-latest"},
    "web_search_options": {},
}


def test_the_tables_here_are_complete() -> None:
    assert IGNORED.keys() == ChatCompletionRequest.IGNORED
    assert UNSUPPORTED.keys() == ChatCompletionRequest.UNSUPPORTED


@pytest.mark.parametrize("stream", [False, True])
async def test_what_has_no_effect_is_named_in_a_header(
    http: httpx.AsyncClient, stream: bool
) -> None:
    response = await http.post(CHAT, json=chat_body(**IGNORED, stream=stream))
    assert response.status_code == 200
    assert response.headers["x-dragoman-ignored"] == ", ".join(sorted(IGNORED))


async def test_a_request_without_such_parameters_has_no_such_header(
    http: httpx.AsyncClient,
) -> None:
    response = await http.post(CHAT, json=chat_body(user=None))
    assert "x-dragoman-ignored" not in response.headers


async def test_smaller_things_without_effect_are_named_too(http: httpx.AsyncClient) -> None:
    part = {"type": "text", "text": "a", "prompt_cache_breakpoint": {"mode": "explicit"}}
    response = await http.post(
        CHAT,
        json=chat_body(
            messages=[{"role": "user", "content": [part]}],
            stream=True,
            stream_options={"include_obfuscation": True},
        ),
    )
    names = response.headers["x-dragoman-ignored"]
    assert names == "stream_options.include_obfuscation, prompt_cache_breakpoint"


async def test_template_variables_that_the_template_lacks_are_named(
    http: httpx.AsyncClient, pool: FakePool
) -> None:
    pool.client.info = msgspec.structs.replace(
        pool.client.info, template_variables=["enable_thinking"]
    )
    response = await http.post(CHAT, json=chat_body(reasoning_effort="low", enable_thinking=True))
    assert response.headers["x-dragoman-ignored"] == "reasoning_effort"


@pytest.mark.parametrize(
    ("path", "body", "clamped"),
    [
        (CHAT, chat_body(max_tokens=10**12), "max_tokens=2048"),
        (CHAT, chat_body(max_completion_tokens=2049), "max_completion_tokens=2048"),
        (
            "/v1/completions",
            {"model": "test", "prompt": "a", "max_tokens": 2049},
            "max_tokens=2048",
        ),
        (
            "/v1/responses",
            {"model": "test", "input": "a", "max_output_tokens": 32_000},
            "max_output_tokens=2048",
        ),
        (CHAT, chat_body(max_tokens=2048), None),
        (CHAT, chat_body(), None),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_more_tokens_than_the_context_has_are_lowered_and_said(
    http: httpx.AsyncClient, path: str, body: dict[str, Any], clamped: str | None, stream: bool
) -> None:
    response = await http.post(path, json={**body, "stream": stream})
    assert response.status_code == 200
    assert response.headers.get("x-dragoman-clamped") == clamped


async def test_completions_name_theirs(http: httpx.AsyncClient) -> None:
    response = await http.post(COMPLETIONS, json=completion_body(user="u"))
    assert response.headers["x-dragoman-ignored"] == "user"


@pytest.mark.parametrize("name", sorted(UNSUPPORTED))
async def test_what_would_change_the_answer_is_refused(http: httpx.AsyncClient, name: str) -> None:
    response = await http.post(CHAT, json=chat_body(**{name: UNSUPPORTED[name]}))
    assert_error(response, 400, code="unsupported_parameter", param=name)
    response = await http.post(CHAT, json=chat_body(**{name: None}))
    assert response.status_code == 200


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"modalities": ["text", "audio"]}, "modalities"),
        (
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [{"type": "input_audio", "input_audio": {"data": ""}}],
                    }
                ]
            },
            "messages[0].content[0]",
        ),
        (
            {"messages": [{"role": "assistant", "content": "a", "audio": {"id": "x"}}]},
            "messages[0].audio",
        ),
    ],
)
async def test_audio_is_refused(
    http: httpx.AsyncClient, fields: dict[str, object], param: str
) -> None:
    response = await http.post(CHAT, json=chat_body(**fields))
    assert_error(response, 400, code="unsupported_parameter", param=param)


async def test_modalities_of_text_alone_are_fine(http: httpx.AsyncClient) -> None:
    response = await http.post(CHAT, json=chat_body(modalities=["text"]))
    assert response.status_code == 200


def literals(annotation: Any) -> set[str]:
    """The strings that an annotation allows."""
    if isinstance(annotation, str):
        return {annotation}
    return {text for part in typing.get_args(annotation) for text in literals(part)}


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (ChatChoice, openai.types.chat.chat_completion.Choice),
        (ChatChunkChoice, openai.types.chat.chat_completion_chunk.Choice),
        (CompletionChoice, openai.types.CompletionChoice),
    ],
)
def test_finish_reasons_are_those_of_openai(ours: type[BaseModel], theirs: type[BaseModel]) -> None:
    field = "finish_reason"
    expected = literals(theirs.model_fields[field].annotation)
    assert literals(ours.model_fields[field].annotation) == expected


def test_our_own_parameters_are_those_documented() -> None:
    """Beyond OpenAI's; a new one must be decided on here."""
    ours = ChatCompletionRequest.model_fields.keys() - set(sdk_parameters(chat_params))
    assert ours == {
        "add_generation_prompt",
        "chat_template_kwargs",
        "choice",
        "continue_final_message",
        "dry_allowed_length",
        "dry_base",
        "dry_multiplier",
        "dry_penalty_last_n",
        "enable_thinking",
        "grammar",
        "ignore_eos",
        "json_schema",
        "lark",
        "lora",
        "min_p",
        "min_tokens",
        "mirostat",
        "mirostat_eta",
        "mirostat_tau",
        "num_ctx",
        "reasoning_budget",
        "regex",
        "repeat_last_n",
        "repeat_penalty",
        "stop_token_ids",
        "top_k",
        "typical_p",
        "xtc_probability",
        "xtc_threshold",
    }
