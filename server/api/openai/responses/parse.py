"""``POST /v1/responses``: from its body to the canonical request."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from pydantic import BaseModel

from server.api.clamped import clamped_header
from server.api.family import Operation, ParsedRequest
from server.api.generation_fields import as_list, bounded, reasoning_budget
from server.api.openai import parameters
from server.api.openai.responses.conversation import Conversation, conversation
from server.api.openai.responses.encoder import ResponseEncoder, ResponseForm
from server.api.openai.responses.errors import PreviousResponseNotFound
from server.api.openai.responses.ignored import ignored_header, ignored_names
from server.api.openai.responses.schemas.items import CustomToolCallItem, FunctionCallItem
from server.api.openai.responses.schemas.request import (
    JsonObjectFormat,
    JsonSchemaFormat,
    ResponsesRequest,
)
from server.api.openai.responses.schemas.response import ResponseObject
from server.api.openai.responses.tools import Toolbox
from server.core.errors import InvalidRequest, Locator, NotFound, UnsupportedParameter
from server.core.model_info import ModelInfo
from server.core.request import ChatPrompt, Constraint, GenerationRequest, ToolChoice

_LOGPROBS = "message.output_text.logprobs"


@dataclass(frozen=True)
class ParsedPrompt:
    """The prompt of a request, and where the request has its parts."""

    prompt: ChatPrompt
    tools: Toolbox
    conversation: Conversation

    def locate(self, at: Locator) -> Locator:
        """Where the body has the canonical place ``at``."""
        match at:
            case ("messages", int(index), "tool_calls", int(call), *_):
                at = self.conversation.call_places[index][call]
            case ("messages", int(index), *_):
                at = self.conversation.places[index]
            case ("tools", int(index), *rest):
                at = (*self.tools.places[index], *rest)
            case ("prompt" | "messages", *_):
                at = ("input",)
            case ("constraint", *_):
                at = ("text", "format")
            case ("sampling", name, *_):
                at = (name,)
            case ("template_kwargs", *_):
                at = ("reasoning",)
        return at


def parsed_prompt(body: ResponsesRequest) -> ParsedPrompt:
    """The prompt of ``body``.

    Raises InvalidRequest, NotFound or UnsupportedParameter where it cannot be served.
    """
    _check_state(body)
    tools = Toolbox()
    tools.add(body.tools or [], ("tools",))
    found = conversation(body.instructions, body.input, tools)
    choice = tools.choose(body.tool_choice, parallel=body.parallel_tool_calls is not False)
    prompt = ChatPrompt(
        messages=found.messages,
        tools=tools.tools,
        tool_choice=choice if tools.tools else ToolChoice(),
        template_kwargs=_template_kwargs(body),
    )
    return ParsedPrompt(prompt, tools, found)


def parse(body: ResponsesRequest) -> ParsedRequest:
    """The body as one canonical request.

    Raises what `parsed_prompt` raises, and InvalidRequest where fields contradict each other.
    """
    parsed = parsed_prompt(body)
    request = GenerationRequest(
        prompt=parsed.prompt,
        sampling=body.sampling(),
        max_tokens=bounded(body.max_output_tokens),
        min_tokens=body.min_tokens or 0,
        stop=as_list(body.stop),
        stop_token_ids=body.stop_token_ids or [],
        reasoning_budget=_reasoning_budget(body),
        ignore_eos=bool(body.ignore_eos),
        logprobs=_logprobs(body),
        constraint=parameters.constraint(body, _text_format(body)),
    )
    encoder = ResponseEncoder(body.model, _form(body, parsed.tools))
    names = [*ignored_names(body), *parsed.tools.ignored, *parsed.conversation.ignored]
    return ParsedRequest(
        model=body.model,
        requests=[request],
        stream=bool(body.stream),
        encoder=encoder.of_model,
        locate=parsed.locate,
        headers=partial(_headers, body, names),
        keep_alive=encoder.in_progress,
        failed=encoder.failed,
    )


def _check_state(body: ResponsesRequest) -> None:
    """Refuses what needs a response, a conversation or a prompt that is stored."""
    if body.previous_response_id is not None and body.conversation is not None:
        raise InvalidRequest(
            "previous_response_id and conversation exclude each other.",
            at=("previous_response_id",),
        )
    if body.previous_response_id is not None:
        raise PreviousResponseNotFound(
            f"Previous response with id {body.previous_response_id[:100]!r} not found: nothing is "
            "stored here. Send the whole conversation as input.",
            at=("previous_response_id",),
        )
    if body.conversation is not None:
        reference = body.conversation
        name = reference if isinstance(reference, str) else reference.id
        raise NotFound(
            f"Conversation with id {name[:100]!r} not found: nothing is stored here. Send the "
            "whole conversation as input.",
            at=("conversation",),
        )
    if body.background:
        raise UnsupportedParameter(
            "background: nothing is stored here, so no response can be fetched later.",
            at=("background",),
        )
    if body.prompt is not None:
        raise UnsupportedParameter("prompt: stored prompts are not supported.", at=("prompt",))


def _template_kwargs(body: ResponsesRequest) -> dict[str, Any]:
    effort = _effort(body)
    stated = {} if effort is None else {"reasoning_effort": effort}
    off = effort == "none" or _reasoning_budget(body) == 0
    return {**stated, "enable_thinking": False} if off else stated


def _reasoning_budget(body: ResponsesRequest) -> int | None:
    stated = None if body.reasoning is None else body.reasoning.max_tokens
    return reasoning_budget(body.reasoning_budget if stated is None else stated)


def _headers(
    body: ResponsesRequest, names: Sequence[str], info: ModelInfo | None
) -> dict[str, str]:
    """Headers that name what has no effect, and how much a limit was lowered."""
    asked = {"max_output_tokens": body.max_output_tokens, "num_ctx": body.num_ctx}
    clamped = clamped_header(asked, info)
    return ignored_header(names, info, effort=_effort(body)) | clamped


def _effort(body: ResponsesRequest) -> str | None:
    return None if body.reasoning is None else body.reasoning.effort


def _logprobs(body: ResponsesRequest) -> int | None:
    wanted = _LOGPROBS in (body.include or [])
    return body.top_logprobs or 0 if wanted or body.top_logprobs else None


def _text_format(body: ResponsesRequest) -> Constraint | None:
    match body.text.format if body.text is not None else None:
        case JsonObjectFormat():
            return Constraint(kind="json_object")
        case JsonSchemaFormat(json_schema=schema):
            return Constraint.of("json_schema", schema)
        case _:
            return None


def _form(body: ResponsesRequest, tools: Toolbox) -> ResponseForm:
    reasoning = body.reasoning
    summary = None if reasoning is None else reasoning.summary or reasoning.generate_summary
    items = [] if isinstance(body.input, str) else body.input
    calls = (item for item in items if isinstance(item, FunctionCallItem | CustomToolCallItem))
    return ResponseForm(
        settings=_settings(body, tools, summary),
        tools=tools,
        reasoning_as_summary=summary is not None,
        call_ids=frozenset(call.call_id for call in calls),
    )


def _settings(body: ResponsesRequest, tools: Toolbox, summary: str | None) -> dict[str, Any]:
    """The settings of a request as its response repeats them."""
    text = {"format": {"type": "text"}, **(_echo(body.text) if body.text else {})}
    return {
        "instructions": body.instructions,
        "tools": list(_echoed_tools(tools)),
        "tool_choice": "auto" if body.tool_choice is None else _echo(body.tool_choice),
        "parallel_tool_calls": body.parallel_tool_calls is not False,
        "text": text,
        "reasoning": {"effort": _effort(body), "summary": summary},
        "max_output_tokens": body.max_output_tokens,
        "temperature": body.temperature,
        "top_p": body.top_p,
        "top_logprobs": body.top_logprobs or 0,
        "truncation": "disabled",
        "metadata": body.metadata or {},
        "store": False,
        "background": False,
        "previous_response_id": None,
        "prompt_cache_key": body.prompt_cache_key,
        "user": body.user,
    }


def _echo(value: Any) -> Any:
    """``value`` as the request wrote it."""
    if isinstance(value, BaseModel):
        return value.model_dump(exclude_unset=True, by_alias=True)
    return value


def _echoed_tools(tools: Toolbox) -> Iterator[dict[str, Any]]:
    for tool in tools.echoed:
        echoed = _echo(tool)
        if tool.type == "function":
            # OpenAI's clients require these two.
            echoed = {"parameters": None, "strict": None, **echoed}
        yield echoed


RESPONSES = Operation(
    path="/v1/responses",
    summary="Answer a conversation of items, whole or as a stream of events.",
    body=ResponsesRequest,
    answer=ResponseObject,
    parse=parse,
)
