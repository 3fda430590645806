"""From a request to a task for the engine, on a thread of its own so that streams go on."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterable
from functools import cached_property
from queue import SimpleQueue

import msgspec

from server.core.errors import (
    PLACE,
    ContextLengthExceeded,
    ConversationError,
    DragomanError,
    InvalidConstraint,
    InvalidRequest,
    QueueFull,
)
from server.core.events import Accepted, Event, Failed
from server.core.native_prompt import RenderedPrompt
from server.core.request import CacheScope, ChatPrompt, GenerationRequest, Prompt, Tool
from server.core.sampling import Sampling
from server.engine.answer import Task
from server.engine.engine import Engine
from server.engine.sampling.matcher import GrammarCompiler, GrammarError, GrammarMatcher
from server.engine.spans import TokenSpan
from server.grammar.constraint import schema_grammar, to_grammar
from server.prompt.chat_model import BuiltPrompt
from server.prompt.guard.length import check_length
from server.reply.tool_arguments import arguments_schema, unenforceable
from server.worker.protocol import Generate, Render, Rendered
from server.worker.serve.load import Loaded

# Text with these ends a repetition for DRY (llama.cpp's default breakers).
_DRY_BREAKERS = (b"\n", b":", b'"', b"*")

# For trying out all tools of a request, which other requests wait for. Usual schemas take a few
# milliseconds each, so that 128 of them do not come near it.
_TOOLS_SECONDS = 5.0

_logger = logging.getLogger(__name__)

Send = Callable[[list[Event]], None]
SendRendered = Callable[[Rendered], None]


class Preparer:
    """Renders, tokenises and checks requests in order of arrival, then hands them to the engine."""

    def __init__(
        self,
        loaded: Loaded,
        engine: Engine,
        send: Send,
        send_rendered: SendRendered,
        queue_size: int,
    ) -> None:
        self._loaded = loaded
        self._engine = engine
        self._send = send
        self._send_rendered = send_rendered
        self._queue_size = queue_size
        self._queue: SimpleQueue[Generate | Render] = SimpleQueue()
        self._lock = threading.Lock()
        self._pending: set[int] = set()
        self._current: Generate | Render | None = None
        assert loaded.compiler is not None
        self._compiler = loaded.compiler

    # --- from the thread that reads the socket ---

    def generate(self, request: Generate) -> None:
        """Queue ``request``, or refuse it at once when the queue is full.

        As many as run together are not waiting, even before the engine has them.
        """
        parallel = self._loaded.info.parallel
        with self._lock:
            waiting = len(self._pending) + self._engine.waiting + self._engine.active - parallel
            if waiting < self._queue_size:
                self._pending.add(request.id)
                self._queue.put(request)
                return
        error = QueueFull(
            f"The model's queue is full: {waiting} requests are waiting.",
            retry_after=self._engine.seconds_until_free(),
        )
        self._send([Failed(id=request.id, error=error.info)])

    def render(self, request: Render) -> None:
        """Queue a request that only wants to see its prompt."""
        self._queue.put(request)

    def cancel(self, request_id: int) -> None:
        """Forget a request, wherever it is."""
        with self._lock:
            if request_id in self._pending:
                self._pending.discard(request_id)
                return
        self._engine.cancel(request_id)

    # --- from the watchdog of the template's time ---

    def fail_current(self, message: str) -> None:
        """The request being prepared cannot be finished; the process is about to end."""
        if self._current is not None:
            self._fail(self._current, ConversationError(message))

    # --- on its own thread ---

    def run(self) -> None:
        """Prepare requests for ever."""
        while True:
            self._current = None
            self._current = request = self._queue.get()
            try:
                if isinstance(request, Render):
                    prompt = render(self._loaded, request.prompt)
                    self._send_rendered(Rendered(id=request.id, prompt=prompt))
                elif request.id in self._pending:
                    self._prepare(request)
            except DragomanError as error:
                self._fail(request, error)
            except Exception as error:
                # Whatever it is, it must not end the thread that the next request needs.
                _logger.exception("preparing a request failed")
                self._fail(request, DragomanError(f"The request could not be prepared: {error}"))

    def _prepare(self, request: Generate) -> None:
        wanted = request.request
        self._check_bias(wanted.sampling.logit_bias)
        built = self._loaded.chat.build(wanted.prompt, context=self._loaded.info.context)
        task = self._task(request.id, request.scope, wanted, built)
        matcher = self._matcher(request.id, wanted, built)
        if request.id not in self._pending:
            return
        accepted = Accepted(
            id=request.id,
            prompt_tokens=task.prompt_length,
            reply_prefix=built.reply_prefix,
            tools_active=built.tools_active,
        )
        self._send([accepted])
        self._engine.submit(task, matcher)
        with self._lock:
            if request.id in self._pending:
                self._pending.discard(request.id)
                return
        # It was cancelled meanwhile, when the engine did not have it yet.
        self._engine.cancel(request.id)

    def _fail(self, request: Generate | Render, error: DragomanError) -> None:
        if isinstance(request, Render):
            self._send_rendered(Rendered(id=request.id, error=error.info))
            return
        with self._lock:
            self._pending.discard(request.id)
        self._send([Failed(id=request.id, error=error.info)])

    def _check_bias(self, bias: Iterable[int]) -> None:
        size = self._loaded.model.vocabulary.size
        unknown = next((token for token in bias if not 0 <= token < size), None)
        if unknown is not None:
            raise InvalidRequest(
                f"{PLACE}: token {unknown} is not in the vocabulary of {size} tokens.",
                at=("sampling", "logit_bias"),
            )

    def _task(
        self, id_: int, scope: CacheScope, request: GenerationRequest, built: BuiltPrompt
    ) -> Task:
        tokens = built.rendered.tokens
        limit = self._loaded.info.context
        if not tokens:
            raise InvalidRequest("The prompt is empty: there is no token to begin with.")
        if len(tokens) + (request.max_tokens != 0) > limit:
            raise ContextLengthExceeded(
                f"This model's maximum context length is {limit} tokens, "
                f"but the prompt has {len(tokens)} tokens and the answer needs at least 1.",
                at=("prompt",),
            )
        sampling = request.sampling.over(self._loaded.chat.sampling)
        return Task(
            id=id_,
            spans=[TokenSpan(tokens)],
            sampling=self._without_ends(sampling) if request.ignore_eos else sampling,
            length_limit=limit,
            max_tokens=limit if request.max_tokens is None else min(request.max_tokens, limit),
            stops=[*request.stop, *built.stops],
            n=request.n,
            logprobs=request.logprobs,
            echo=request.echo,
            prompt_text=built.rendered.prompt,
            ignore_eos=request.ignore_eos,
            scope=scope,
            strip_leading_space=built.strip_leading_space,
            visible_control_tokens=self._visible,
            prediction=self._prediction(request),
            dry_breakers=self._dry_breakers if sampling.dry_multiplier else frozenset(),
        )

    def _prediction(self, request: GenerationRequest) -> list[int]:
        if not request.prediction:
            return []
        vocabulary = self._loaded.model.vocabulary
        check_length(request.prediction, vocabulary, self._loaded.info.context, ("prediction",))
        return vocabulary.tokenize(request.prediction, parse_special=False)

    def _without_ends(self, sampling: Sampling) -> Sampling:
        """The sampling parameters with every end-of-generation token banned."""
        ends = self._loaded.model.vocabulary.end_of_generation_tokens
        banned = sampling.logit_bias | dict.fromkeys(ends, -math.inf)
        return msgspec.structs.replace(sampling, logit_bias=banned)

    def _matcher(
        self, id_: int, request: GenerationRequest, built: BuiltPrompt
    ) -> GrammarMatcher | None:
        """What the answer must match; None also for a request that was cancelled meanwhile."""
        content = _content_grammar(request)
        grammar = self._loaded.chat.reply_grammar(request.prompt, built.reply_prefix, content)
        if grammar is None:
            return None
        compiler = self._compiler.result()
        matcher = compiler.cached(grammar)
        if matcher is not None:
            return matcher
        if isinstance(request.prompt, ChatPrompt) and request.prompt.tool_choice.mode != "none":
            patience = time.monotonic() + _TOOLS_SECONDS
            for tool in request.prompt.tools:
                if id_ not in self._pending:
                    return None  # cancelled
                if time.monotonic() > patience:
                    raise unenforceable(tool, "The tools before it took too long to compile.")
                _try_out(tool, compiler)
        try:
            if content is not None and content != grammar:
                compiler.try_out(content)
            return compiler.compile(grammar)
        except GrammarError as error:
            at = ("constraint",) if request.constraint else ("tools",)
            raise InvalidConstraint(str(error), at=at) from error

    @cached_property
    def _visible(self) -> frozenset[int]:
        """Control tokens that the reply parser must see as text."""
        reply_format = self._loaded.chat.reply_format
        markers = reply_format.markers() if reply_format else frozenset()
        return frozenset(
            token.id
            for token in self._loaded.model.vocabulary.special_tokens
            if any(token.text in marker for marker in markers)
        )

    @cached_property
    def _dry_breakers(self) -> frozenset[int]:
        piece = self._loaded.model.vocabulary.piece
        return frozenset(
            token
            for token in range(self._loaded.model.vocabulary.size)
            if any(breaker in piece(token) for breaker in _DRY_BREAKERS)
        )


def _content_grammar(request: GenerationRequest) -> str | None:
    """The grammar of the request's own constraint, which holds for the content alone."""
    if request.constraint is None:
        return None
    try:
        return to_grammar(request.constraint)
    except InvalidConstraint as error:
        raise error.moved(("constraint",)) from error


def _try_out(tool: Tool, compiler: GrammarCompiler) -> None:
    """Refuse ``tool`` by name if its schema cannot be enforced."""
    try:
        compiler.try_out(schema_grammar(arguments_schema(tool)))
    except GrammarError as error:
        raise unenforceable(tool, str(error)) from error


def render(loaded: Loaded, prompt: Prompt) -> RenderedPrompt:
    """``prompt`` as the model would get it."""
    return loaded.chat.build(prompt, context=loaded.info.context, with_segments=True).rendered
