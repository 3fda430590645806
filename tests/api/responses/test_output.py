"""The model's reply becomes the items of a response, streamed and whole."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

import httpx
import pytest

from server.api.openai.responses.packing import Unpacker
from server.core.errors import DragomanError
from server.core.events import Accepted, Delta, Event, Finished, TokenLogprob
from server.core.request import GenerationRequest
from server.reply.builtin_formats import builtin_format
from tests.api.fakes import FakePool, answer, usage
from tests.api.responses.wire import checked, raw, respond, response_body, stream, types

Connect = Callable[..., httpx.AsyncClient]

LOOK = {
    "type": "function",
    "name": "look",
    "parameters": {"type": "object", "properties": {"at": {"type": "string"}}},
    "strict": False,
}
LOGPROBS = {"include": ["message.output_text.logprobs"]}
PATCH = {"type": "custom", "name": "apply_patch", "description": "Edits files."}


def call(name: str, arguments: dict[str, Any]) -> str:
    """A call as Hermes writes it."""
    return f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments})}\n</tool_call>"


def pieces(text: str) -> list[str]:
    return [text[at : at + 3] for at in range(0, len(text), 3)]


def hermes(*texts: str, **fields: Any) -> FakePool:
    """A pool whose model writes reasoning and calls as Hermes does."""

    def script(request: GenerationRequest) -> Iterable[Event]:
        return answer(request, *texts, tools_active=True, **fields)

    return FakePool(script, builtin_format("hermes"))


async def both(connect: Connect, *texts: str, **fields: Any) -> tuple[Any, list[dict[str, Any]]]:
    """The response, the same streamed and whole but for its random ids, and the events."""
    whole = (await raw(connect(hermes(*texts)), **fields)).json()
    events = await stream(connect(hermes(*texts)), **fields)
    streamed = events[-1]["response"]
    checked(streamed)
    assert without_ids(streamed) == without_ids(whole)
    return checked(whole), events


def without_ids(response: dict[str, Any]) -> dict[str, Any]:
    ids = ("id", "call_id", "encrypted_content")
    output = [
        {name: value for name, value in item.items() if name not in ids}
        for item in response["output"]
    ]
    times = dict.fromkeys(("id", "created_at", "completed_at"), None)
    return {**response, **times, "output": output}


async def test_text_is_a_message(connect: Connect) -> None:
    response, events = await both(connect, "Hel", "lo!")
    assert response.status == "completed"
    assert response.output_text == "Hello!"
    assert [item.type for item in response.output] == ["message"]
    assert types(events) == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]


async def test_usage_tells_cached_and_written_tokens(connect: Connect) -> None:
    response = await respond(connect(hermes("a", "b", cached_tokens=2)))
    usage = response.usage
    assert usage is not None
    assert (usage.input_tokens, usage.output_tokens, usage.total_tokens) == (5, 2, 7)
    assert usage.input_tokens_details.cached_tokens == 2
    assert usage.input_tokens_details.cache_write_tokens == 3


async def test_reasoning_is_an_item_before_the_message(connect: Connect) -> None:
    response, events = await both(connect, "<think>", "I see", ".", "</think>", "42")
    reasoning, message = response.output
    assert reasoning.type == "reasoning"
    assert reasoning.summary == []
    assert [part.text for part in reasoning.content] == ["I see."]
    assert Unpacker().text(reasoning.encrypted_content) == "I see."
    assert message.type == "message"
    assert response.output_text == "42"
    assert response.usage.output_tokens_details.reasoning_tokens == 4
    assert types(events)[2:8] == [
        "output_item.added",
        "content_part.added",
        "reasoning_text.delta",
        "reasoning_text.delta",
        "reasoning_text.done",
        "content_part.done",
    ]


async def test_reasoning_is_the_summary_if_one_is_asked_for(connect: Connect) -> None:
    texts = ("<think>", "I see", ".", "</think>", "42")
    response, events = await both(connect, *texts, reasoning={"summary": "auto"})
    reasoning = response.output[0]
    assert [part.text for part in reasoning.summary] == ["I see."]
    assert reasoning.content == []
    assert types(events)[3:7] == [
        "reasoning_summary_part.added",
        "reasoning_summary_text.delta",
        "reasoning_summary_text.delta",
        "reasoning_summary_text.done",
    ]


async def test_no_summary_may_be_asked_for_in_a_word(connect: Connect) -> None:
    texts = ("<think>", "I see.", "</think>", "42")
    response, _ = await both(connect, *texts, reasoning={"summary": "none"})
    assert [part.text for part in response.output[0].content] == ["I see."]
    assert response.reasoning.summary is None


async def test_a_call_is_an_item(connect: Connect) -> None:
    text = call("look", {"at": "sky"})
    response, events = await both(connect, "I look.", *pieces(text), tools=[LOOK])
    message, looked = response.output
    assert message.type == "message"
    assert (looked.type, looked.name, looked.status) == ("function_call", "look", "completed")
    assert json.loads(looked.arguments) == {"at": "sky"}
    assert looked.namespace is None
    done = [event for event in events if event["type"].endswith("arguments.done")]
    assert [(event["name"], event["arguments"]) for event in done] == [("look", looked.arguments)]
    deltas = [event["delta"] for event in events if event["type"].endswith("arguments.delta")]
    assert "".join(deltas) == looked.arguments


async def test_reasoning_text_and_calls_of_all_kinds_are_items_in_their_order(
    connect: Connect,
) -> None:
    space = {"type": "namespace", "name": "here", "tools": [LOOK]}
    called = [call("look", {}), call("apply_patch", {"input": "+a"}), call("here__look", {})]
    texts = ["<think>Hm.</think>", "I look.", *pieces("\n".join(called))]
    response, events = await both(connect, *texts, tools=[LOOK, PATCH, space])
    kinds = ["reasoning", "message", "function_call", "custom_tool_call", "function_call"]
    assert [item.type for item in response.output] == kinds
    assert [item.status for item in response.output] == ["completed"] * 5
    assert response.output[4].namespace == "here"
    added = [event["item"] for event in events if event["type"].endswith("item.added")]
    done = [event["item"] for event in events if event["type"].endswith("item.done")]
    assert [item["id"] for item in added] == [item["id"] for item in done]
    assert len({item["call_id"] for item in done[2:]}) == 3


async def test_a_call_has_an_id_that_no_call_of_the_request_has(connect: Connect) -> None:
    written = "functions.look:0"  # Kimi numbers calls, and a small model begins again
    begin, middle, end = "<|tool_call_begin|>", "<|tool_call_argument_begin|>", "<|tool_call_end|>"
    called = f"{begin}{written}{middle}{{}}{end}"
    kimi = f"<|tool_calls_section_begin|>{called}<|tool_calls_section_end|>"
    pool = FakePool(
        lambda request: answer(request, kimi, tools_active=True), builtin_format("kimi-k2")
    )
    first = await respond(connect(pool), tools=[LOOK])
    assert first.output[0].call_id == written  # type: ignore[union-attr]
    items = [
        {"type": "function_call", "call_id": written, "name": "look", "arguments": "{}"},
        {"type": "function_call_output", "call_id": written, "output": "blue"},
    ]
    second = await respond(connect(pool), tools=[LOOK], input=items)
    assert second.output[0].call_id != written  # type: ignore[union-attr]


async def test_tools_of_namespaces_are_called_by_name_and_namespace(connect: Connect) -> None:
    spaces = [
        {"type": "namespace", "name": name, "description": f"About {name}.", "tools": [LOOK]}
        for name in ("here", "mcp__there__")
    ]
    text = call("here__look", {"at": "a"}) + "\n" + call("mcp__there__look", {"at": "b"})
    response, _ = await both(connect, *pieces(text), tools=[*spaces, LOOK])
    calls = [(item.name, item.namespace) for item in response.output]
    assert calls == [("look", "here"), ("look", "mcp__there__")]


@pytest.mark.parametrize("text", ["", '*** Begin Patch\n+"é" \\ 😀\n', "\\u0041\\", '"'])
async def test_a_free_form_tool_gets_the_raw_text(connect: Connect, text: str) -> None:
    written = call("apply_patch", {"input": text})
    response, events = await both(connect, *pieces(written), tools=[PATCH])
    (patch,) = response.output
    assert (patch.type, patch.name, patch.input) == ("custom_tool_call", "apply_patch", text)
    deltas = [event["delta"] for event in events if event["type"].endswith("input.delta")]
    assert "".join(deltas) == text
    (done,) = [event for event in events if event["type"].endswith("input.done")]
    assert done["input"] == text


async def test_arguments_of_another_form_are_the_input_as_they_are(connect: Connect) -> None:
    written = call("apply_patch", {"patch": "x"})
    response, _ = await both(connect, *pieces(written), tools=[PATCH])
    assert response.output[0].input == '{"patch": "x"}'


async def test_an_answer_at_its_limit_is_incomplete(connect: Connect) -> None:
    response = await respond(connect(hermes("Hel", reason="length")), max_output_tokens=1)
    assert response.status == "incomplete"
    assert response.incomplete_details is not None
    assert response.incomplete_details.reason == "max_output_tokens"
    assert response.max_output_tokens == 1
    assert response.output[0].status == "incomplete"  # type: ignore[union-attr]
    events = await stream(connect(hermes("Hel", reason="length")))
    assert types(events)[-2:] == ["output_item.done", "incomplete"]
    assert events[-2]["item"]["status"] == "incomplete"


async def test_an_empty_answer_has_an_empty_message(connect: Connect) -> None:
    response, _ = await both(connect, "<think>", "Hm", "</think>")
    assert [item.type for item in response.output] == ["reasoning", "message"]
    assert response.output_text == ""


async def test_logprobs_come_with_the_text(connect: Connect) -> None:
    response, events = await both(connect, "Hel", "lo", top_logprobs=2, **LOGPROBS)
    logprobs = response.output[0].content[0].logprobs
    assert [entry.token for entry in logprobs] == ["Hel", "lo"]
    assert [len(entry.top_logprobs) for entry in logprobs] == [2, 2]
    assert response.top_logprobs == 2
    deltas = [event for event in events if event["type"].endswith("text.delta")]
    assert [len(event["logprobs"]) for event in deltas] == [1, 1]


async def test_a_whole_response_has_the_logprobs_of_a_stream(connect: Connect) -> None:
    """A token may begin with a space that the text lacks."""

    def script(request: GenerationRequest) -> Iterable[Event]:
        yield Accepted(id=1, prompt_tokens=5)
        for text, piece, unseen in (("It", b" It", 1), ("'s", b"'s", 0), ("!", b"!", 0)):
            token = TokenLogprob(id=1, piece=piece, logprob=-0.5, unseen=unseen)
            yield Delta(id=1, index=0, text=text, tokens=1, logprobs=[token])
        yield Finished(id=1, index=0, reason="stop", usage=usage(3))

    whole = (await raw(connect(FakePool(script)), top_logprobs=0, **LOGPROBS)).json()
    *_, last = await stream(connect(FakePool(script)), top_logprobs=0, **LOGPROBS)
    (part,) = whole["output"][0]["content"]
    assert [entry["token"] for entry in part["logprobs"]] == [" It", "'s", "!"]
    assert without_ids(whole) == without_ids(last["response"])


async def test_each_text_of_a_whole_response_has_the_logprobs_of_its_own_tokens(
    connect: Connect,
) -> None:
    """Between texts around calls a line break is made up, which is in no token."""
    call = ["<|channel|>", "commentary to=functions.look", "<|message|>", "{}", "<|call|>"]
    header = ["<|start|>", "assistant"]
    pieces: list[str] = []
    for text in "abc":
        said = ["<|channel|>", "final", "<|message|>", text, "<|end|>"]
        pieces += [*said, *header, *call, *header]

    def script(request: GenerationRequest) -> Iterable[Event]:
        yield Accepted(id=1, prompt_tokens=5, reply_prefix="<|start|>assistant", tools_active=True)
        for piece in pieces[:-2]:
            token = TokenLogprob(id=1, piece=piece.encode(), logprob=-0.5)
            yield Delta(id=1, index=0, text=piece, tokens=1, logprobs=[token])
        yield Finished(id=1, index=0, reason="stop", usage=usage(len(pieces) - 2))

    pool = FakePool(script, builtin_format("gpt-oss"))
    whole = (await raw(connect(pool), tools=[LOOK], **LOGPROBS)).json()
    parts = [item["content"][0] for item in whole["output"] if item["type"] == "message"]
    told = [(part["text"], [entry["token"] for entry in part["logprobs"]]) for part in parts]
    assert told == [("a", ["a"]), ("\nb", ["b"]), ("\nc", ["c"])]
    *_, last = await stream(connect(pool), tools=[LOOK], **LOGPROBS)
    assert without_ids(whole) == without_ids(last["response"])


async def test_settings_are_repeated(connect: Connect) -> None:
    settings = {
        "instructions": "Be brief.",
        "metadata": {"a": "b"},
        "temperature": 0.5,
        "top_p": 0.9,
        "parallel_tool_calls": False,
        "tools": [LOOK, PATCH],
        "tool_choice": {"type": "function", "name": "look"},
        "text": {"format": {"type": "json_object"}},
        "truncation": "disabled",
        "user": "me",
        "prompt_cache_key": "k",
    }
    response = (await raw(connect(), **settings)).json()
    checked(response)
    assert {name: response[name] for name in settings} == settings
    assert response["store"] is True


@pytest.mark.parametrize(
    "tool",
    [
        {"type": "function", "name": "now"},
        {"type": "namespace", "name": "n", "tools": [LOOK, PATCH, {"type": "web_search"}]},
        {"type": "namespace", "name": "n", "description": None, "tools": [LOOK]},
    ],
)
async def test_a_tool_is_repeated_as_clients_read_it(connect: Connect, tool: Any) -> None:
    response = await respond(connect(), tools=[tool], tool_choice={"type": "web_search"})
    assert response.tools[0].type == tool["type"]
    assert response.tool_choice == "auto"


async def test_a_failure_after_the_beginning_ends_the_response(connect: Connect) -> None:
    def script(request: GenerationRequest) -> Iterable[Event | Exception]:
        yield Accepted(id=1, prompt_tokens=5)
        yield Delta(id=1, index=0, text="Hel", tokens=1)
        yield DragomanError("It broke.")

    events = await stream(connect(FakePool(script)))
    assert events[-1]["type"] == "response.failed"
    response = events[-1]["response"]
    assert response["error"] == {"code": "server_error", "message": "It broke."}
    assert response["status"] == "failed"
    assert response["output"][0]["content"][0]["text"] == "Hel"


async def test_an_error_before_the_beginning_has_its_status(connect: Connect) -> None:
    for streamed in (False, True):
        body = response_body(model="nobody", stream=streamed)
        answered = await connect().post("/v1/responses", json=body)
        assert answered.status_code == 404
        assert answered.json()["error"]["code"] == "model_not_found"
