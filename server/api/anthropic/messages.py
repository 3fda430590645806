"""``POST /v1/messages``: from its body to the canonical request."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from server.api import ignored_names as shared
from server.api.anthropic.betas import unknown_betas
from server.api.anthropic.context_edits import (
    ContextEdits,
    context_edits,
    lowered_triggers,
)
from server.api.anthropic.conversation import Parsed, parse_conversation
from server.api.anthropic.encoder import PING, MessageEncoder
from server.api.anthropic.errors import locate
from server.api.anthropic.schemas.messages_request import Conversation, MessagesRequest
from server.api.anthropic.schemas.messages_response import MessageOut
from server.api.clamped import clamped_header
from server.api.constraint_fields import constraint, constraint_place, schema_place
from server.api.family import Model, Operation, ParsedRequest
from server.api.generation_fields import as_list, bounded, reasoning_budget
from server.core.errors import InvalidRequest, Locator, path_text
from server.core.model_info import ModelInfo
from server.core.request import Constraint, GenerationRequest


def parse(body: MessagesRequest) -> ParsedRequest:
    """The body as one canonical request; raises what `parse_conversation` raises."""
    parsed = parse_conversation(body)
    request = GenerationRequest(
        prompt=parsed.prompt,
        sampling=body.sampling(),
        max_tokens=bounded(body.max_tokens),
        min_tokens=body.min_tokens or 0,
        stop=as_list(body.stop_sequences),
        stop_token_ids=body.stop_token_ids or [],
        reasoning_budget=_reasoning_budget(body),
        ignore_eos=bool(body.ignore_eos),
        adapters=body.adapters(),
        constraint=_constraint(body),
    )
    display = body.thinking.display if body.thinking else None
    edits = context_edits(body, parsed)
    if body.compaction is not None:
        if edits is not None:
            raise InvalidRequest(
                "compaction and context_management exclude each other.", at=("compaction",)
            )
        edits = ContextEdits(None, parsed)
    encoder = MessageEncoder(
        max_tokens=body.max_tokens, omit_thinking=display == "omitted", edits=edits
    )

    async def prepare(model: Model) -> list[GenerationRequest]:
        assert edits is not None
        if body.compaction is not None:
            return [edits.sum_up(request, body.compaction.instructions, model)]
        return [await edits.prepare(request, model)]

    return ParsedRequest(
        model=body.model,
        requests=[request],
        stream=bool(body.stream),
        encoder=encoder.of_model,
        locate=partial(_locate, body, parsed),
        headers=partial(_headers, body, parsed),
        keep_alive=lambda: (PING,),
        failed=encoder.failed,
        prepare=None if edits is None else prepare,
        shorter=None if edits is None else edits.shorter,
    )


def _locate(body: MessagesRequest, parsed: Parsed, at: Locator) -> Locator:
    """Where ``body`` has the canonical place ``at``."""
    if at[:1] == ("constraint",) and (stated := constraint_place(body)):
        schema = at[1:2] == ("schema",)
        return body.place((*schema_place(body), *at[2:]) if schema else stated)
    place = locate(at, messages=parsed.messages, parts=parsed.parts, tools=parsed.tools)
    if place[:2] == ("output_config", "format") and body.output_format is not None:
        return ("output_format", *place[2:])
    return body.place(place)


def _reasoning_budget(body: MessagesRequest) -> int | None:
    stated = None if body.thinking is None else body.thinking.budget_tokens
    return reasoning_budget(body.reasoning_budget if stated is None else stated)


def _constraint(body: MessagesRequest) -> Constraint | None:
    stated = None if body.output_config is None else body.output_config.format
    if stated and body.output_format and stated != body.output_format:
        raise InvalidRequest(
            "output_config.format and output_format differ.", at=("output_format",)
        )
    form = stated or body.output_format
    own = Constraint.of("json_schema", form.json_schema, strict=False) if form else None
    return constraint(body, ("output_format" if body.output_format else "output_config", own))


def _headers(body: MessagesRequest, parsed: Parsed, info: ModelInfo | None) -> dict[str, str]:
    """Headers that name what has no effect, and how much a limit was lowered."""
    ignored = ignored_header(body, parsed, info, without=_unused(body, info))
    asked = {"max_tokens": body.max_tokens, "num_ctx": body.num_ctx}
    return ignored | clamped_header(asked, info, lowered_triggers(body, info))


def _unused(body: MessagesRequest, info: ModelInfo | None) -> list[str]:
    if not shared.without_reasoning(_reasoning_budget(body), info):
        return []
    stated = body.thinking is not None and body.thinking.budget_tokens is not None
    place = ("thinking", "budget_tokens") if stated else body.place(("reasoning_budget",))
    return [path_text(place)]


def ignored_header(
    body: Conversation, parsed: Parsed, info: ModelInfo | None, *, without: Sequence[str] = ()
) -> dict[str, str]:
    """The response header that names what of ``body`` has no effect, if anything.

    Of a model that is not loaded yet it is not known what its template reads.
    """
    names = parsed.ignored | {*without}
    if info is not None and info.template_variables is not None:
        unread = _stated(body) - set(info.template_variables)
        names |= {_VARIABLES[name] for name in unread} | {*body.unread(info.template_variables)}
    return shared.ignored_header(sorted(names))


def _stated(body: Conversation) -> set[str]:
    """The template's variables that Anthropic's own fields set."""
    effort = None if body.output_config is None else body.output_config.effort
    stated = {"enable_thinking": body.thinking, "reasoning_effort": effort}
    return {name for name, value in stated.items() if value is not None}


_VARIABLES = {"enable_thinking": "thinking", "reasoning_effort": "output_config.effort"}


MESSAGES = Operation(
    path="/v1/messages",
    summary="Answer a conversation, whole or as a stream of events (Anthropic).",
    body=MessagesRequest,
    answer=MessageOut,
    parse=parse,
    unread_headers=unknown_betas,
)
