"""The form of a response: what it repeats of its request, and how it is written."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from server.api.openai.responses.conversation import Conversation
from server.api.openai.responses.origin import conversation_id
from server.api.openai.responses.schemas.request import ResponsesRequest
from server.api.openai.responses.schemas.response import ConversationId
from server.api.openai.responses.schemas.tools import Choice, NamespaceTool, OtherChoice, OtherTool
from server.api.openai.responses.tools import Toolbox


@dataclass(frozen=True, kw_only=True)
class ResponseForm:
    """What a request says about the form of its response.

    Attributes:
        settings: Fields of the response that repeat the request's settings.
        tools: The tools, which have other names here than in the model's calls.
        reasoning_as_summary: Whether reasoning is given as its summary.
        call_ids: Ids of the calls before it, which no new call may have.
        compacts: Whether it is a summary in place of an answer.
    """

    settings: dict[str, Any]
    tools: Toolbox
    reasoning_as_summary: bool
    call_ids: frozenset[str]
    compacts: bool


def response_form(
    body: ResponsesRequest, tools: Toolbox, conversation: Conversation, *, stored: bool
) -> ResponseForm:
    """The form that ``body``, whose ``conversation`` this is, asks for."""
    reasoning = body.reasoning
    summary = None if reasoning is None else reasoning.summary or reasoning.generate_summary
    return ResponseForm(
        settings=_settings(body, tools, summary, stored=stored),
        tools=tools,
        reasoning_as_summary=summary is not None,
        call_ids=conversation.call_ids,
        compacts=conversation.compacts,
    )


def effort_of(body: ResponsesRequest) -> str | None:
    """How much the model should think, if the request says so."""
    stated = None if body.reasoning is None else body.reasoning.effort
    return stated or body.reasoning_effort


def _settings(
    body: ResponsesRequest, tools: Toolbox, summary: str | None, *, stored: bool
) -> dict[str, Any]:
    """The settings of a request as its response repeats them."""
    text = {"format": {"type": "text"}, **(_echo(body.text) if body.text else {})}
    conversation = body.conversation
    return {
        "instructions": body.instructions,
        "tools": list(_echoed_tools(tools)),
        "tool_choice": _echoed_choice(body.tool_choice),
        "parallel_tool_calls": body.parallel_tool_calls is not False,
        "text": text,
        "reasoning": {"effort": effort_of(body), "summary": summary},
        "max_output_tokens": body.max_output_tokens,
        "temperature": body.temperature,
        "top_p": body.top_p,
        "top_logprobs": body.top_logprobs or 0,
        "truncation": body.truncation or "disabled",
        "metadata": body.metadata or {},
        "store": stored,
        "background": bool(body.background),
        "previous_response_id": body.previous_response_id,
        "conversation": conversation and ConversationId(id=conversation_id(conversation)),
        "prompt_cache_key": _text(body.prompt_cache_key),
        "user": _text(body.user),
    }


def _text(value: Any) -> str | None:
    """``value``, which has no effect and was not checked, if clients could read it."""
    return value if isinstance(value, str) else None


def _echo(value: Any) -> Any:
    """``value`` as the request wrote it."""
    if isinstance(value, BaseModel):
        return value.model_dump(exclude_unset=True, by_alias=True)
    return value


def _echoed_tools(tools: Toolbox) -> Iterator[dict[str, Any]]:
    """The offered tools, with the fields that OpenAI's clients require."""
    for tool in tools.echoed:
        echoed = _echo(tool)
        if isinstance(tool, NamespaceTool):
            inner = [_echo(each) for each in tool.tools if not isinstance(each, OtherTool)]
            echoed |= {"description": tool.description or "", "tools": inner}
        elif tool.type == "function":
            echoed = {"parameters": None, "strict": None, **echoed}
        yield echoed


def _echoed_choice(choice: Choice | None) -> Any:
    """``choice``, if it has an effect."""
    return "auto" if choice is None or isinstance(choice, OtherChoice) else _echo(choice)
