"""From a request to a task for the engine, on a thread of its own so that streams go on."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import partial

import msgspec

from server.core.errors import DragomanError, QueueFull
from server.core.events import Accepted
from server.core.pieces import ImagePiece, Piece
from server.core.request import ChatPrompt, ImagePart, Prompt
from server.engine.engine import Engine
from server.engine.llama.adapters import AdapterSet
from server.prompt.chat_model import ChatModel
from server.prompt.written_answers import WrittenAnswers
from server.reply.custom_tools import as_functions
from server.worker.protocol import (
    AdapterTried,
    AppliedAdapter,
    Generate,
    Render,
    Rendered,
    StepEvents,
    refusal,
)
from server.worker.serve.adapters import UnusableAdapter
from server.worker.serve.connection import Send
from server.worker.serve.constrain import Constrainer
from server.worker.serve.load import GenerationModel, Loaded, VocabularyOnly
from server.worker.serve.prefixes import OnDisk
from server.worker.serve.request_queue import RequestQueue
from server.worker.serve.tasks import TaskBuilder

_TOOLS_NOT_OFFERED = "tools (called only where tool_choice requires it)"


class _Cancelled(Exception):
    """The request was cancelled while it was prepared."""


class Preparer:
    """Renders, tokenises and checks requests in order of arrival, then hands them to the engine."""

    def __init__(
        self,
        model: GenerationModel,
        engine: Engine,
        send: Send,
        *,
        queue_size: int,
        disk: OnDisk | None,
    ) -> None:
        self._model = model
        self._engine = engine
        self._disk = disk
        self._send = send
        self._queue_size = queue_size
        self._queue: RequestQueue[Generate | Render] = RequestQueue(
            self._answer, send, failure="The request could not be prepared"
        )
        # Answers whose cells are gone need not come back token by token.
        cells = model.context.kv_cells + model.stored_tokens
        answers = disk.answers if disk else None
        cells += answers.most_tokens if answers else 0
        written = WrittenAnswers(model.vocabulary, most_tokens=cells, log=answers)
        self._tasks = TaskBuilder(model, written)
        self._constrainer = Constrainer(model.chat, model.compiler)
        self._lock = threading.Lock()
        # The paths of adapters that could not be loaded.
        self._unusable: set[str] = set()
        # Each request on its way to the engine, and whether it gives way.
        self._pending: dict[int, bool] = {}

    # --- from the thread that reads the socket ---

    def generate(self, request: Generate) -> None:
        """Queue ``request``, or refuse it at once when the queue is full.

        As many requests as run together do not count as waiting, even before the engine has them.
        Those that give way take no place in the queue; their sender bounds their number.
        """
        engine, parallel = self._engine, self._model.info.parallel
        with self._lock:
            pending = sum(not low for low in self._pending.values())
            waiting = pending + engine.waiting + engine.active - engine.giving_way - parallel
            if request.gives_way or waiting < self._queue_size:
                self._pending[request.id] = request.gives_way
                self._queue.put(request, gives_way=request.gives_way)
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
            self._chosen(request.adapters)
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
        wanted, ignored = _for_model(self._model.chat, request.request.prompt)
        adapters = self._chosen(request.adapters)
        prompt = self._model.chat.build(
            wanted,
            context=self._model.info.context,
            with_opening=not self._model.context.partial_removal,
            read_image=self._model.image_reader(request.scope),
        )
        task = self._tasks.build(request, prompt, adapters)
        constrained = self._constrainer.constrain(
            wanted,
            prompt.reply_prefix,
            request.request.constraint,
            still_wanted=partial(self._check_wanted, request),
        )
        if task.adapters is not adapters:
            name = self._model.adapters.activated(request.adapters)
            ignored.append(f"adapter {name} (not invoked)")
        if self._disk is not None:
            self._disk.prefixes.await_files()
        self._check_wanted(request)
        accepted = Accepted(
            id=request.id,
            prompt_tokens=task.prompt_length,
            reply_prefix=prompt.reply_prefix,
            tools_active=prompt.tools_active,
            loosened=constrained.loosened if constrained else [],
            ignored=ignored,
        )
        self._send(StepEvents(events=[accepted]))
        self._engine.submit(task, constrained.matcher if constrained else None)
        if not self._forget(request.id):
            # It was cancelled meanwhile, before the engine had it.
            self._engine.cancel(request.id)

    def _chosen(self, applied: Sequence[AppliedAdapter]) -> AdapterSet | None:
        """The set of ``applied``; the API process hears which cannot be loaded, or now can."""
        try:
            chosen = self._model.adapters.chosen(applied)
        except UnusableAdapter as error:
            self._unusable.add(error.path)
            self._send(AdapterTried(path=error.path, error=error.reason))
            raise
        for path in self._unusable & {adapter.path for adapter in applied}:
            self._unusable.remove(path)
            self._send(AdapterTried(path=path, error=None))
        return chosen

    def _check_wanted(self, request: Generate) -> None:
        if request.id not in self._pending:
            raise _Cancelled

    def _forget(self, request_id: int) -> bool:
        """Whether the request was on its way to the engine; it no longer is."""
        with self._lock:
            return self._pending.pop(request_id, None) is not None


def _for_model(chat: ChatModel, prompt: Prompt) -> tuple[Prompt, list[str]]:
    """``prompt`` in the terms of the model ``chat``, and what of it is left out.

    Models know no free-form tools.
    """
    asked = as_functions(prompt) if isinstance(prompt, ChatPrompt) else prompt
    wanted = chat.with_usable_tools(asked)
    return wanted, [] if wanted is asked else [_TOOLS_NOT_OFFERED]


def render(model: Loaded, request: Render) -> Rendered:
    """The answer to ``request``: its prompt as the model gets it. Raises InvalidRequest."""
    wanted, ignored = _for_model(model.chat, request.prompt)
    # llama.cpp tells the trained context only of a model whose weights it has read.
    context = None if isinstance(model, VocabularyOnly) else model.info.context
    read_image = model.image_reader(request.scope) if isinstance(model, GenerationModel) else None
    if isinstance(model, VocabularyOnly):
        read_image = _uncounted
    prompt = model.chat.build(wanted, context=context, with_segments=True, read_image=read_image)
    rendered = msgspec.structs.replace(prompt.rendered, ignored=ignored)
    return Rendered(id=request.id, prompt=rendered)


def _uncounted(_: ImagePart) -> Sequence[Piece]:
    """An image for a model without weights, where only its place in the text is known."""
    return [ImagePiece(cells=1, positions=1, digest=b"")]
