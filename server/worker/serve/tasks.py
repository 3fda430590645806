"""From a request and its rendered prompt to the engine's task, checked against the model."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import cached_property, partial

import msgspec
import numpy as np
from numpy.typing import NDArray

from server.core.errors import PLACE, ContextLengthExceeded, InvalidRequest, Locator
from server.core.pieces import keys_of, regrouped
from server.core.request import CacheScope, ChatPrompt, GenerationRequest
from server.core.sampling import Sampling
from server.engine.llama.adapters import AdapterSet
from server.engine.sampling.length_rules import ReasoningLimit
from server.engine.spans import spans_of
from server.engine.task import StopWatch, Task
from server.engine.vision.encodable import EncodableImage
from server.prompt.built_prompt import BuiltPrompt
from server.prompt.context_length import check_context_length
from server.prompt.turn_reader import TurnReader
from server.prompt.written_answers import WrittenAnswers
from server.reply.chat_parser import chat_parser
from server.reply.custom_tools import as_functions
from server.reply.thoughts import thought_texts
from server.worker.protocol import Generate
from server.worker.serve.activation import invoked, scope_with
from server.worker.serve.load import GenerationModel

# Text with these ends a repetition for DRY (llama.cpp's default breakers).
_DRY_BREAKERS = (b"\n", b":", b'"', b"*")


class TaskBuilder:
    """Makes the engine's tasks for one model."""

    def __init__(self, model: GenerationModel, written: WrittenAnswers) -> None:
        self._chat = model.chat
        self._written = written
        self._vocabulary = model.vocabulary
        self._context = model.info.context
        self._reader = TurnReader(model.vocabulary, model.chat.reply_format)

    def build(
        self, message: Generate, prompt: BuiltPrompt, adapters: AdapterSet | None = None
    ) -> Task:
        """The task of ``message``, whose prompt was built as ``prompt``, with ``adapters``.

        Raises:
            InvalidRequest: The prompt is empty, or a token that is named does not exist.
            ContextLengthExceeded: Prompt and answer do not fit into the context.
        """
        scope = scope_with(adapters, message.scope)
        request, tokens, limit = message.request, keys_of(prompt.pieces), self._context
        if isinstance(request.prompt, ChatPrompt):
            reading = self._reader.reading(as_functions(request.prompt).tools, tolerant=False)
            tokens = self._written.put_back(scope, reading, tokens)
        images = [piece for piece in prompt.pieces if isinstance(piece, EncodableImage)]
        if not tokens:
            raise InvalidRequest(
                "The prompt is empty: there is no token to begin with.", at=("prompt",)
            )
        if len(tokens) + (request.max_tokens != 0) > limit:
            raise ContextLengthExceeded(
                f"This model's maximum context length is {limit} tokens, "
                f"but the prompt has {len(tokens)} tokens and the answer needs at least 1.",
                at=("prompt",),
                numbers={"tokens": len(tokens), "most": limit - (request.max_tokens != 0)},
            )
        adapters, activation = invoked(adapters, tokens)
        self._check_tokens(request.sampling.logit_bias, ("sampling", "logit_bias"))
        self._check_tokens(request.stop_token_ids, ("stop_token_ids",))
        sampling = request.sampling.over(self._chat.sampling)
        stop_watch = self._stop_watch(request, prompt)
        return Task(
            id=message.id,
            spans=spans_of(regrouped(tokens, images)),
            turn_border=len(tokens) - prompt.opening,
            sampling=self._without_ends(sampling) if request.ignore_eos else sampling,
            length_limit=limit,
            max_tokens=limit if request.max_tokens is None else min(request.max_tokens, limit),
            stops=prompt.stops if stop_watch else [*request.stop, *prompt.stops],
            stop_watch=stop_watch,
            n=request.n,
            logprobs=request.logprobs,
            echo=request.echo,
            prompt_text=prompt.rendered.prompt,
            ignore_eos=request.ignore_eos,
            scope=scope,
            adapters=adapters,
            activation=activation,
            gives_way=message.gives_way,
            strip_leading_space=prompt.strip_leading_space,
            visible_control_tokens=self._visible_control_tokens,
            prediction=self._prediction(request.prediction),
            dry_breakers=self._dry_breakers if sampling.dry_multiplier else frozenset(),
            written=self._remembering(request, scope, prompt),
            stop_tokens=frozenset([*request.stop_token_ids, *prompt.ends]),
            min_tokens=request.min_tokens,
            end_tokens=self._ends(request) if request.min_tokens else frozenset(),
            reasoning_limit=self._reasoning_limit(request, prompt),
            priority=request.priority,
        )

    def _remembering(
        self, request: GenerationRequest, scope: CacheScope, prompt: BuiltPrompt
    ) -> Callable[[NDArray[np.int32], int], None] | None:
        """What keeps the tokens of an answer, if it is one to a chat."""
        if not isinstance(request.prompt, ChatPrompt):
            return None
        tools, tolerant = as_functions(request.prompt).tools, request.constraint is None
        reading = self._reader.reading(tools, tolerant=tolerant)
        return partial(self._written.remember, scope, reading, prompt.reply_prefix)

    def _ends(self, request: GenerationRequest) -> frozenset[int]:
        return self._vocabulary.end_of_generation_tokens | {*request.stop_token_ids}

    def _reasoning_limit(
        self, request: GenerationRequest, prompt: BuiltPrompt
    ) -> ReasoningLimit | None:
        """The request's budget of reasoning in the family's own texts; None where it has none."""
        if request.reasoning_budget is None or not isinstance(request.prompt, ChatPrompt):
            return None
        texts = thought_texts(
            self._chat.reply_format,
            prefix=prompt.reply_prefix,
            tools_active=prompt.tools_active,
            must_call=request.prompt.tool_choice.mode in {"required", "named"},
        )
        if texts is None:
            return None
        return ReasoningLimit(
            tokens=request.reasoning_budget,
            openings=tuple(text.encode() for text in texts.openings),
            ends=tuple(text.encode() for text in texts.ends),
            opened=texts.opened,
            recurs=texts.recurs,
            closing=self._spelt(texts.closing),
            closing_again=self._spelt(texts.closing_again),
            skipping=self._spelt(texts.skipping),
        )

    def _spelt(self, text: str) -> tuple[int, ...]:
        """The tokens of a text of the family's own; its markers are control tokens."""
        return tuple(self._vocabulary.tokenize(text, parse_special=True))

    def _stop_watch(
        self, request: GenerationRequest, prompt: BuiltPrompt
    ) -> Callable[[], StopWatch] | None:
        """A reader of the answer, since the request's stop strings end a chat's content alone."""
        if not request.stop or not isinstance(request.prompt, ChatPrompt):
            return None
        return partial(
            chat_parser,
            self._chat.reply_format,
            request,
            prefix=prompt.reply_prefix,
            tools_active=prompt.tools_active,
        )

    def _check_tokens(self, tokens: Iterable[int], at: Locator) -> None:
        size = self._vocabulary.size
        unknown = next((token for token in tokens if not 0 <= token < size), None)
        if unknown is not None:
            raise InvalidRequest(
                f"{PLACE}: token {unknown} is not in the vocabulary of {size} tokens.",
                at=at,
            )

    def _prediction(self, text: str | None) -> list[int]:
        if not text:
            return []
        check_context_length(text, self._vocabulary, self._context, ("prediction",))
        return self._vocabulary.tokenize(text, parse_special=False)

    def _without_ends(self, sampling: Sampling) -> Sampling:
        """The sampling parameters with every end-of-generation token banned."""
        ends = self._vocabulary.end_of_generation_tokens
        banned = sampling.logit_bias | dict.fromkeys(ends, -math.inf)
        return msgspec.structs.replace(sampling, logit_bias=banned)

    @cached_property
    def _visible_control_tokens(self) -> frozenset[int]:
        """Control tokens that the reply's parser must see as text."""
        return frozenset(self._reader.markers)

    @cached_property
    def _dry_breakers(self) -> frozenset[int]:
        piece = self._vocabulary.piece
        return frozenset(
            token
            for token in range(self._vocabulary.size)
            if any(breaker in piece(token) for breaker in _DRY_BREAKERS)
        )
