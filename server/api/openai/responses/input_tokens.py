"""``POST /v1/responses/input_tokens``: how many tokens a request's prompt has."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import Response

from server.api.endpoint import converted, described_body, naming, read, rendered
from server.api.generation_fields import bounded
from server.api.openai.responses.ignored import ignored_header, ignored_names
from server.api.openai.responses.origin import origin_of
from server.api.openai.responses.parse import ParsedPrompt, parsed_prompt
from server.api.openai.responses.schemas.request import ResponsesRequest
from server.api.openai.responses.schemas.response import InputTokens
from server.api.openai.responses.truncation import Shortening
from server.api.validation import to_json
from server.core.errors import ContextLengthExceeded
from server.core.model_info import ModelInfo
from server.core.native_prompt import RenderedPrompt
from server.core.request import GenerationRequest

router = APIRouter()


@router.post(
    "/v1/responses/input_tokens",
    response_model=InputTokens,
    openapi_extra=described_body(ResponsesRequest),
)
async def count_input_tokens(request: Request) -> Response:
    """Count the tokens of a prompt, without generating.

    With ``truncation: auto`` these are the tokens of what would be left of it.
    """
    body = await read(request, ResponsesRequest)
    origin = await origin_of(
        request,
        given=body.input,
        previous_response_id=body.previous_response_id,
        conversation=body.conversation,
    )
    stored = bool(origin.items)
    parsed = await converted(request, lambda: parsed_prompt(body, origin), large=stored)
    names = [*ignored_names(body), *parsed.tools.ignored, *parsed.conversation.ignored]
    shortening = Shortening(
        GenerationRequest(prompt=parsed.prompt, max_tokens=bounded(body.max_output_tokens)),
        parsed.conversation,
        names,
        summed_up=parsed.conversation.compacts,
    )
    shortens = parsed.body.truncation == "auto"
    info, found = await _rendered(request, parsed, shortening, shortens=shortens)
    answer = InputTokens(object="response.input_tokens", input_tokens=len(found.tokens))
    headers = naming(found.ignored, ignored_header(names, body, info))
    return Response(to_json(answer), media_type="application/json", headers=headers)


async def _rendered(
    request: Request, parsed: ParsedPrompt, shortening: Shortening, *, shortens: bool
) -> tuple[ModelInfo, RenderedPrompt]:
    """The model, and what it gets of the request of ``shortening``.

    With ``shortens`` it is made shorter until the context holds it and a token of the answer, as it
    would be before generating. Raises what `rendered` raises.
    """
    while True:
        prompt = shortening.request.prompt
        try:
            info, found = await rendered(request, parsed.body.model, prompt, parsed.locate)
        except ContextLengthExceeded as error:
            if not shortens or not shortening(error):
                raise
            continue
        tokens, most = len(found.tokens), info.context - 1
        too_long = ContextLengthExceeded("", numbers={"tokens": tokens, "most": most})
        if not shortens or tokens <= most or not shortening(too_long):
            return info, found
