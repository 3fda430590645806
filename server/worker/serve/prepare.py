"""From a request to a task for the engine, on a thread of its own so that streams go on."""

from __future__ import annotations

import threading
import time

from server.core.errors import DragomanError, InvalidConstraint, QueueFull
from server.core.events import Accepted
from server.core.request import ChatPrompt, Constraint, Prompt, Tool
from server.engine.engine import Engine
from server.engine.sampling.matcher import GrammarCompiler, GrammarError, GrammarMatcher
from server.grammar.conversion import schema_grammar, to_grammar
from server.prompt.chat_model import BuiltPrompt
from server.prompt.written_answers import WrittenAnswers
from server.reply.custom_tools import as_functions
from server.reply.tool_schema import arguments_schema, unenforceable, ungrammatical
from server.worker.protocol import Generate, Render, Rendered, StepEvents, refusal
from server.worker.serve.connection import Send
from server.worker.serve.load import GenerationModel, Loaded, VocabularyOnly
from server.worker.serve.request_queue import RequestQueue
from server.worker.serve.tasks import TaskBuilder

# For trying out all tools of a request, while other requests wait. Usual schemas take a few
# milliseconds each, so 128 of them stay far below it.
_TOOLS_SECONDS = 5.0


class _Cancelled(Exception):
    """The request was cancelled while it was prepared."""


class Preparer:
    """Renders, tokenises and checks requests in order of arrival, then hands them to the engine."""

    def __init__(
        self, model: GenerationModel, engine: Engine, send: Send, *, queue_size: int
    ) -> None:
        self._model = model
        self._engine = engine
        self._send = send
        self._queue_size = queue_size
        self._queue: RequestQueue[Generate | Render] = RequestQueue(
            self._answer, send, failure="The request could not be prepared"
        )
        # Answers whose cells are gone need not come back token by token.
        cells = model.context.kv_cells + model.stored_tokens
        written = WrittenAnswers(model.vocabulary, most_tokens=cells)
        self._tasks = TaskBuilder(model, written)
        self._lock = threading.Lock()
        self._pending: set[int] = set()

    # --- from the thread that reads the socket ---

    def generate(self, request: Generate) -> None:
        """Queue ``request``, or refuse it at once when the queue is full.

        As many requests as run together do not count as waiting, even before the engine has them.
        """
        parallel = self._model.info.parallel
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
        self._send(refusal(request, error))

    def render(self, request: Render) -> None:
        """Queue a request that only wants to see its prompt."""
        self._queue.put(request)

    def cancel(self, request_id: int) -> None:
        """Forget a request, wherever it is."""
        if not self._forget(request_id):
            self._engine.cancel(request_id)

    # --- from the watchdog of the template's time ---

    def fail_current(self, error: DragomanError) -> None:
        """Refuse the request that is being prepared; the process is about to end."""
        self._queue.fail_current(error)

    # --- on its own thread ---

    def run(self) -> None:
        """Prepare requests until the process ends."""
        self._queue.run()

    def _answer(self, request: Generate | Render) -> None:
        if isinstance(request, Render):
            self._send(render(self._model, request))
            return
        try:
            self._prepare(request)
        except _Cancelled:
            pass
        finally:
            self._forget(request.id)

    def _prepare(self, request: Generate) -> None:
        self._check_wanted(request)
        wanted = _functions_only(request.request.prompt)
        prompt = self._model.chat.build(wanted, context=self._model.info.context)
        task = self._tasks.build(request, prompt)
        matcher = self._matcher(request, wanted, prompt)
        self._check_wanted(request)
        accepted = Accepted(
            id=request.id,
            prompt_tokens=task.prompt_length,
            reply_prefix=prompt.reply_prefix,
            tools_active=prompt.tools_active,
        )
        self._send(StepEvents(events=[accepted]))
        self._engine.submit(task, matcher)
        if not self._forget(request.id):
            # It was cancelled meanwhile, before the engine had it.
            self._engine.cancel(request.id)

    def _check_wanted(self, request: Generate) -> None:
        if request.id not in self._pending:
            raise _Cancelled

    def _forget(self, request_id: int) -> bool:
        """Whether the request was on its way to the engine; it no longer is."""
        with self._lock:
            known = request_id in self._pending
            self._pending.discard(request_id)
            return known

    def _matcher(
        self, request: Generate, wanted: Prompt, prompt: BuiltPrompt
    ) -> GrammarMatcher | None:
        """The grammar that the answer must match, at its start; None: it may be anything."""
        constraint = request.request.constraint
        content = _content_grammar(constraint) if constraint else None
        grammar = self._model.chat.reply_grammar(wanted, prompt.reply_prefix, content)
        if grammar is None:
            return None
        compiler = self._model.compiler.result()
        matcher = compiler.cached(grammar)
        if matcher is not None:
            return matcher
        if isinstance(wanted, ChatPrompt) and wanted.tool_choice.mode != "none":
            deadline = time.monotonic() + _TOOLS_SECONDS
            for index, tool in enumerate(wanted.tools):
                self._check_wanted(request)
                if time.monotonic() > deadline:
                    reason = "The tools before it took too long to compile."
                    raise unenforceable(tool, index, reason)
                _try_out(tool, index, compiler)
        try:
            if content is not None and content != grammar:
                compiler.try_out(content)
            return compiler.compile(grammar)
        except GrammarError as error:
            at = ("constraint",) if constraint else ("tools",)
            raise InvalidConstraint(str(error), at=at) from error


def _functions_only(prompt: Prompt) -> Prompt:
    """``prompt`` in the terms of a model, which knows no free-form tools."""
    return as_functions(prompt) if isinstance(prompt, ChatPrompt) else prompt


def _content_grammar(constraint: Constraint) -> str:
    """The grammar of the request's own constraint, which holds for the content alone."""
    try:
        return to_grammar(constraint)
    except InvalidConstraint as error:
        raise error.moved(("constraint",)) from error


def _try_out(tool: Tool, index: int, compiler: GrammarCompiler) -> None:
    """Refuse ``tool`` by name if its schema or its grammar cannot be enforced."""
    if tool.grammar is not None:
        try:
            compiler.try_out(to_grammar(tool.grammar))
        except GrammarError as error:
            raise ungrammatical(tool, index, str(error)) from error
        return
    try:
        compiler.try_out(schema_grammar(arguments_schema(tool, index)))
    except GrammarError as error:
        raise unenforceable(tool, index, str(error)) from error


def render(model: Loaded, request: Render) -> Rendered:
    """The answer to ``request``: its prompt as the model gets it. Raises InvalidRequest."""
    wanted = _functions_only(request.prompt)
    # llama.cpp tells the trained context only of a model whose weights it has read.
    context = None if isinstance(model, VocabularyOnly) else model.info.context
    prompt = model.chat.build(wanted, context=context, with_segments=True)
    return Rendered(id=request.id, prompt=prompt.rendered)
