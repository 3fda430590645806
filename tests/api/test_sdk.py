"""The OpenAI SDK itself, over a real connection."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable

import msgspec
import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam
from pydantic import BaseModel

from server.core.errors import ContextLengthExceeded, DragomanError, QueueFull
from server.core.events import Event, Failed
from server.core.request import GenerationRequest
from server.reply.builtin_formats import builtin_format
from tests.api.fakes import FakePool, answer
from tests.api.serving import serving

pytestmark = pytest.mark.process

MESSAGES: list[ChatCompletionMessageParam] = [{"role": "user", "content": "hi"}]


@pytest.fixture
async def sdk(pool: FakePool) -> AsyncIterator[openai.AsyncOpenAI]:
    async with serving(pool, api_keys=["key"]) as running:
        base_url = f"http://127.0.0.1:{running.port}/v1"
        async with openai.AsyncOpenAI(base_url=base_url, api_key="key") as client:
            yield client


async def test_a_chat(sdk: openai.AsyncOpenAI) -> None:
    answered = await sdk.chat.completions.create(
        model="test",
        messages=MESSAGES,
        extra_body={"top_k": 5},
    )
    assert answered.choices[0].message.content == "Hello!"
    assert (answered._request_id or "").startswith("req_")


async def test_a_streamed_chat(sdk: openai.AsyncOpenAI) -> None:
    async with sdk.chat.completions.stream(
        model="test",
        messages=MESSAGES,
        stream_options={"include_usage": True},
    ) as stream:
        final = await stream.get_final_completion()
    assert final.choices[0].message.content == "Hello!"
    assert final.usage is not None
    assert final.usage.total_tokens == 8


async def test_an_answer_may_be_sent_back(sdk: openai.AsyncOpenAI, pool: FakePool) -> None:
    """As an object, as what it holds, and as everything it could hold."""
    call = '<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>'

    def script(request: GenerationRequest) -> Iterable[Event]:
        return answer(request, "<think>", "hm", "</think>", call, tools_active=True)

    pool.client.script = script
    pool.client.info = msgspec.structs.replace(
        pool.client.info, reply_format=builtin_format("hermes")
    )
    tools = [{"type": "function", "function": {"name": "f"}}]
    answered = await sdk.chat.completions.create(
        model="test",
        messages=MESSAGES,
        tools=tools,  # type: ignore[arg-type]
    )
    message = answered.choices[0].message
    assert message.tool_calls
    for echoed in (message, message.model_dump(), message.model_dump(exclude_unset=True)):
        result = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "1"}
        await sdk.chat.completions.create(
            model="test",
            messages=[*MESSAGES, echoed, result],  # type: ignore[list-item]
            tools=tools,  # type: ignore[arg-type]
        )


async def test_parsed_output_asks_for_its_schema(sdk: openai.AsyncOpenAI, pool: FakePool) -> None:
    class Point(BaseModel):
        x: int

    pool.client.script = lambda request: answer(request, '{"x": ', "1}")
    parsed = await sdk.chat.completions.parse(
        model="test",
        messages=MESSAGES,
        response_format=Point,
    )
    assert parsed.choices[0].message.parsed == Point(x=1)
    constraint = pool.client.requests[0].constraint
    assert constraint is not None
    assert constraint.kind == "json_schema"


async def test_completions_whole_and_streamed(sdk: openai.AsyncOpenAI) -> None:
    whole = await sdk.completions.create(model="test", prompt="a")
    stream = await sdk.completions.create(model="test", prompt="a", stream=True)
    assert "".join([c.choices[0].text async for c in stream]) == whole.choices[0].text == "Hello!"


async def test_models(sdk: openai.AsyncOpenAI) -> None:
    assert [model.id async for model in sdk.models.list()] == ["test", "org/broken"]
    assert (await sdk.models.retrieve("org/broken")).owned_by == "dragoman"


@pytest.mark.parametrize(
    ("error", "sent"), [(ContextLengthExceeded("no"), 1), (QueueFull("no", retry_after=0), 3)]
)
async def test_bad_input_is_sent_once_and_a_full_queue_is_tried_again(
    sdk: openai.AsyncOpenAI, pool: FakePool, error: DragomanError, sent: int
) -> None:
    assert sdk.max_retries == 2
    pool.client.script = lambda request: [Failed(id=1, error=error.info)]
    with pytest.raises(openai.APIStatusError):
        await sdk.chat.completions.create(model="test", messages=MESSAGES)
    assert len(pool.client.requests) == sent


async def test_errors_have_their_classes(sdk: openai.AsyncOpenAI) -> None:
    create = sdk.chat.completions.create
    with pytest.raises(openai.NotFoundError) as unknown:
        await create(model="nope", messages=MESSAGES)
    assert unknown.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as hot:
        await create(model="test", messages=MESSAGES, temperature=9)
    assert hot.value.param == "temperature"
    with pytest.raises(openai.AuthenticationError):
        await sdk.with_options(api_key="wrong").models.list()
