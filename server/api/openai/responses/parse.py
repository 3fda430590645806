"""``POST /v1/responses``: from its body to the canonical request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from server.api.clamped import clamped_header
from server.api.constraint_fields import constraint, constraint_place, schema_place
from server.api.family import ParsedRequest, Prepare
from server.api.generation_fields import SWITCHES, as_list, bounded, reasoning_budget
from server.api.ignored_names import without_reasoning
from server.api.openai.errors import locate
from server.api.openai.responses.auto_compaction import (
    AutoCompaction,
    compaction_threshold,
    lowered_thresholds,
    within_the_context,
)
from server.api.openai.responses.call_results import with_call_ids
from server.api.openai.responses.conversation import Conversation, conversation
from server.api.openai.responses.encoder import ResponseEncoder
from server.api.openai.responses.form import effort_of, response_form
from server.api.openai.responses.ignored import ignored_header, ignored_names
from server.api.openai.responses.origin import Origin
from server.api.openai.responses.schemas.items import ConfigurationUpdateItem, InputItem
from server.api.openai.responses.schemas.request import ResponsesRequest
from server.api.openai.responses.schemas.settings import (
    JsonObjectFormat,
    JsonSchemaFormat,
    ReasoningOptions,
    TextOptions,
)
from server.api.openai.responses.tools import Toolbox
from server.api.openai.responses.truncation import Shortening
from server.api.summary import for_a_summary
from server.core.errors import InvalidRequest, Locator, UnsupportedParameter, path_text
from server.core.model_info import ModelInfo
from server.core.request import ChatPrompt, Constraint, GenerationRequest, ToolChoice

_LOGPROBS = "message.output_text.logprobs"


@dataclass(frozen=True)
class ParsedPrompt:
    """The prompt of a request, and where the request has its parts.

    ``body`` is the request's, with the settings that the conversation changed.
    """

    body: ResponsesRequest
    prompt: ChatPrompt
    tools: Toolbox
    conversation: Conversation

    def locate(self, at: Locator) -> Locator:
        """Where the body has the canonical place ``at``."""
        match at:
            case ("prompt" | "messages", *_):
                at = self.conversation.place(at)
            case ("tools", int(index), *rest):
                at = (*self.tools.places[index], *rest)
            case ("constraint", *rest):
                at = ("text", "format", *rest)
            case ("sampling", name, *_):
                at = (name,)
            case ("template_kwargs", name) if name not in SWITCHES:
                at = ("chat_template_kwargs", name)
            case ("template_kwargs", *_):
                at = ("reasoning",)
        return at


def parsed_prompt(body: ResponsesRequest, origin: Origin) -> ParsedPrompt:
    """The prompt of ``body``, which goes on from ``origin``.

    Raises InvalidRequest, NotFound or UnsupportedParameter where it cannot be served.
    """
    if body.prompt is not None:
        raise UnsupportedParameter("prompt: stored prompts are not supported.", at=("prompt",))
    tools = Toolbox()
    tools.add(body.tools or [], ("tools",))
    if body.input is None and not origin.at:
        raise InvalidRequest("input: Field required.", at=("input",))
    given = [] if body.input is None else body.input
    found = conversation(body.instructions, given, tools, origin)
    body = _updated(_updated(body, found.stored_updates, own_first=True), found.updates)
    choice = tools.choose(body.tool_choice, parallel=body.parallel_tool_calls is not False)
    offered = [] if found.compacts else tools.tools
    prompt = ChatPrompt(
        messages=found.messages,
        tools=offered,
        tool_choice=choice if offered else ToolChoice(),
        template_kwargs=_template_kwargs(body),
    )
    return ParsedPrompt(body, prompt, tools, found)


def _updated(
    body: ResponsesRequest, updates: Sequence[ConfigurationUpdateItem], *, own_first: bool = False
) -> ResponsesRequest:
    """``body`` with the settings of ``updates``, of which later ones replace earlier ones.

    With ``own_first`` those that it has itself stay.
    """
    own_effort = own_first and effort_of(body) is not None
    own_format = own_first and body.text is not None and body.text.format is not None
    for update in updates:
        reasoning, text = update.reasoning, update.text
        if reasoning and "effort" in reasoning.model_fields_set and not own_effort:
            options = body.reasoning or ReasoningOptions.model_validate({})
            changed = options.model_copy(update={"effort": reasoning.effort})
            body = body.model_copy(update={"reasoning": changed})
        if text and "format" in text.model_fields_set and not own_format:
            form = body.text or TextOptions.model_validate({})
            body = body.model_copy(update={"text": form.model_copy(update={"format": text.format})})
    return body


@dataclass(frozen=True)
class ParsedResponse:
    """A body, turned into a canonical request and into the form of its response.

    Attributes:
        request: The canonical request, and how it is answered.
        encoder: Writes the response.
        given: The items of the body as they are stored, those it refers to among them.
        ignored: Paths of what has no effect; those that follow are named as well, until the headers
            are sent.
    """

    request: ParsedRequest
    encoder: ResponseEncoder
    given: Sequence[InputItem]
    ignored: list[str]


def response_id(name: str) -> str:
    """The id of the response that has these letters."""
    return f"resp_{name}"


def parse(body: ResponsesRequest, origin: Origin, *, stored: bool, name: str) -> ParsedResponse:
    """The body as one canonical request.

    ``stored`` says whether its response is, and ``name`` has the letters of that one's id.

    Raises what `parsed_prompt` raises, and InvalidRequest where fields contradict each other.
    """
    parsed = parsed_prompt(body, origin)
    body = parsed.body
    request = GenerationRequest(
        prompt=parsed.prompt,
        sampling=body.sampling(),
        max_tokens=bounded(body.max_output_tokens),
        min_tokens=body.min_tokens or 0,
        stop=as_list(body.stop),
        stop_token_ids=body.stop_token_ids or [],
        reasoning_budget=_reasoning_budget(body),
        ignore_eos=bool(body.ignore_eos),
        adapters=body.adapters(),
        logprobs=_logprobs(body),
        constraint=constraint(body, ("text", _text_format(body))),
    )
    if compacts := parsed.conversation.compacts:
        request = for_a_summary(request, request.max_tokens)
    form = response_form(body, parsed.tools, parsed.conversation, stored=stored)
    encoder = ResponseEncoder(body.model, form, response_id(name))
    ignored = [*ignored_names(body), *parsed.tools.ignored, *parsed.conversation.ignored]
    shortening = Shortening(request, parsed.conversation, ignored, summed_up=compacts)
    answer = ParsedRequest(
        model=body.model,
        requests=[request],
        stream=bool(body.stream),
        encoder=encoder.of_model,
        locate=partial(_locate, body, parsed),
        headers=partial(_headers, body, ignored),
        keep_alive=encoder.in_progress,
        failed=encoder.failed,
        prepare=_prepare(body, shortening, encoder, compacts=compacts),
        shorter=shortening if compacts or body.truncation == "auto" else None,
    )
    given = with_call_ids(parsed.conversation.given, lambda: origin.items)
    return ParsedResponse(answer, encoder, given, ignored)


def _prepare(
    body: ResponsesRequest, shortening: Shortening, encoder: ResponseEncoder, *, compacts: bool
) -> Prepare | None:
    """What becomes of the request once its model is loaded."""
    if compacts:
        return partial(within_the_context, shortening)
    beyond = compaction_threshold(body)
    return None if beyond is None else AutoCompaction(beyond, shortening, encoder)


def _locate(body: ResponsesRequest, parsed: ParsedPrompt, at: Locator) -> Locator:
    """Where ``body`` has the canonical place ``at``."""
    constraint, schema = constraint_place(body), schema_place(body)
    if at[:1] == ("constraint",) and constraint:
        return body.place(locate(at, constraint=constraint, schema=schema))
    return parsed.locate(at)


def _template_kwargs(body: ResponsesRequest) -> dict[str, Any]:
    options = body.reasoning
    stated: dict[str, tuple[Locator, Any]] = {}
    if options is not None:
        stated["reasoning_effort"] = (("reasoning", "effort"), options.effort)
        stated["enable_thinking"] = (("reasoning", "enabled"), options.enabled)
    variables = body.template_variables(stated)
    if variables.get("reasoning_effort") == "none" or _reasoning_budget(body) == 0:
        variables.setdefault("enable_thinking", False)
    return variables


def _reasoning_budget(body: ResponsesRequest) -> int | None:
    stated = None if body.reasoning is None else body.reasoning.max_tokens
    return reasoning_budget(body.reasoning_budget if stated is None else stated)


def _headers(
    body: ResponsesRequest, names: Sequence[str], info: ModelInfo | None
) -> dict[str, str]:
    """Headers that name what has no effect, and how much a limit was lowered."""
    if without_reasoning(_reasoning_budget(body), info):
        stated = body.reasoning is not None and body.reasoning.max_tokens is not None
        place = ("reasoning", "max_tokens") if stated else body.place(("reasoning_budget",))
        names = [*names, path_text(place)]
    asked = {"max_output_tokens": body.max_output_tokens, "num_ctx": body.num_ctx}
    clamped = clamped_header(asked, info, lowered_thresholds(body, info))
    return ignored_header(names, body, info) | clamped


def _logprobs(body: ResponsesRequest) -> int | None:
    wanted = _LOGPROBS in (body.include or [])
    return body.top_logprobs or 0 if wanted or body.top_logprobs else None


def _text_format(body: ResponsesRequest) -> Constraint | None:
    match body.text.format if body.text is not None else None:
        case JsonObjectFormat(json_schema=None):
            return Constraint(kind="json_object")
        case JsonObjectFormat(json_schema=schema):
            return Constraint.of("json_schema", schema, strict=False)
        case JsonSchemaFormat(json_schema=schema, strict=strict):
            return Constraint.of("json_schema", schema, strict=bool(strict))
        case _:
            return None
