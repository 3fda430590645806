"""From the wire's generation parameters to the canonical ones."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from server.api.openai.schemas.base import GenerationFields, SamplingFields
from server.api.openai.schemas.chat_request import (
    ChatCompletionRequest,
    JsonObjectFormat,
    JsonSchemaFormat,
)
from server.core.errors import InvalidRequest
from server.core.model_info import ModelInfo
from server.core.request import CacheScope, Constraint, GenerationRequest, TokensPrompt
from server.core.sampling import Sampling

_PLAIN_SAMPLING = [name for name in Sampling.__struct_fields__ if name != "logit_bias"]


def for_model(
    draft: GenerationRequest,
    body: GenerationFields,
    info: ModelInfo,
    *,
    id_: int,
    cache_scope: str,
) -> GenerationRequest:
    """``draft`` completed with what depends on the model, and checked against it.

    More tokens than the context holds means up to its end. Raises InvalidRequest where a token is
    not in the vocabulary, and where the model does not generate.
    """
    if not info.generates:
        raise InvalidRequest(
            f"The model {info.model_id!r} computes embeddings; it does not generate.",
            param="model",
        )
    if isinstance(draft.prompt, TokensPrompt):
        _check_vocabulary(draft.prompt.ids, info, "prompt")
    limit = draft.max_tokens
    return msgspec.structs.replace(
        draft,
        id=id_,
        sampling=_sampling(body, info),
        max_tokens=None if limit is None else min(limit, info.context),
        cache_scope=CacheScope(api_key=cache_scope),
    )


def _sampling(body: SamplingFields, info: ModelInfo) -> Sampling:
    bias = {int(token): value for token, value in (body.logit_bias or {}).items()}
    _check_vocabulary(bias, info, "logit_bias")
    plain = {name: getattr(body, name) for name in _PLAIN_SAMPLING}
    return Sampling(**plain, logit_bias=bias)


def _check_vocabulary(tokens: Iterable[int], info: ModelInfo, param: str) -> None:
    for token in tokens:
        if not 0 <= token < info.vocabulary:
            raise InvalidRequest(
                f"{param}: token {token} is not in the vocabulary of {info.vocabulary} tokens.",
                param=param,
            )


def ignored_header(body: GenerationFields, info: ModelInfo | None) -> dict[str, str]:
    """The response header that names the parameters of ``body`` that have no effect here.

    Of a model that is not loaded yet it is not known what its template reads.
    """
    names = body.ignored()
    if info is not None and info.template_variables is not None:
        names += [
            name
            for name in ("enable_thinking", "reasoning_effort")
            if getattr(body, name, None) is not None and name not in info.template_variables
        ]
    return {"x-dragoman-ignored": ", ".join(names)} if names else {}


def stops(body: GenerationFields) -> list[str]:
    """The stop strings."""
    return [body.stop] if isinstance(body.stop, str) else list(body.stop or [])


def include_usage(body: GenerationFields) -> bool:
    """Whether usage is asked for; raises InvalidRequest for options without a stream."""
    if body.stream_options is None:
        return False
    if not body.stream:
        raise InvalidRequest(
            "stream_options is only allowed when stream is true.", param="stream_options"
        )
    return bool(body.stream_options.include_usage)


def constraint(body: GenerationFields) -> Constraint | None:
    """What the answer must match; raises InvalidRequest where more than one thing is asked for."""
    found: dict[str, Constraint] = {}
    if body.regex is not None:
        found["regex"] = Constraint(kind="regex", body=body.regex)
    if body.choice is not None:
        found["choice"] = Constraint(kind="choice", body=_json(body.choice))
    if body.lark is not None:
        found["lark"] = Constraint(kind="lark", body=body.lark)
    if body.grammar is not None:
        found["grammar"] = Constraint(kind="gbnf", body=body.grammar)
    if isinstance(body, ChatCompletionRequest):
        match body.response_format:
            case JsonObjectFormat():
                found["response_format"] = Constraint(kind="json_object")
            case JsonSchemaFormat(json_schema=schema):
                # OpenAI: no schema at all means any JSON object.
                text = _json(schema.json_schema or {"type": "object"})
                found["response_format"] = Constraint(kind="json_schema", body=text)
    if len(found) > 1:
        names = " and ".join(found)
        raise InvalidRequest(f"{names} exclude each other.", param=list(found)[1])
    return next(iter(found.values()), None)


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
