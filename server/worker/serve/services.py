"""Services: the messages that each kind of loaded model answers, and how."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import msgspec

from server.core.errors import DragomanError, InvalidRequest
from server.core.events import Event
from server.core.model_info import EngineStats, ModelInfo
from server.core.worker_settings import WorkerSettings
from server.engine.backend import Backend
from server.engine.disk.counters import DiskCounters
from server.engine.draft_model import DraftModel
from server.engine.engine import Engine
from server.engine.own_head import OwnHead
from server.engine.priority import give_way
from server.worker.protocol import (
    Cancel,
    Embed,
    Generate,
    Heartbeat,
    Rank,
    Render,
    Request,
    StepEvents,
    Tokenize,
    refusal,
)
from server.worker.serve.connection import Send
from server.worker.serve.embed import EmbeddingService
from server.worker.serve.load import (
    EmbeddingModel,
    GenerationModel,
    Loaded,
    RankingModel,
    VocabularyOnly,
)
from server.worker.serve.prefixes import on_disk
from server.worker.serve.prepare import Preparer, render
from server.worker.serve.rank import RankingService
from server.worker.serve.request_queue import RequestQueue
from server.worker.serve.tokenizing import TokenService

M = TypeVar("M", Generate, Cancel, Render, Embed, Rank, Tokenize)


@dataclass(frozen=True, kw_only=True, slots=True)
class Services:
    """The services of one model, registered by the type of message that each takes.

    Attributes:
        info: What is known about the model.
        send: Takes messages to the API process.
        otherwise: What to say to a request that no service takes.
        run: Serves on the main thread, until ``stop`` is called from another one.
        stop: Ends ``run`` soon.
        close: Called when ``run`` has ended, before the process does.
        heartbeat: How the model is now.
        fail_current: Refuses the request whose prompt is being made.
        threads: Functions that run until the process ends, each on its own thread, by name.
    """

    info: ModelInfo
    send: Send
    otherwise: str
    run: Callable[[], None]
    stop: Callable[[], None]
    heartbeat: Callable[[], Heartbeat]
    fail_current: Callable[[DragomanError], None]
    threads: dict[str, Callable[[], None]] = field(default_factory=dict)
    close: Callable[[], None] = lambda: None
    _takers: dict[type[Request], list[Callable[[Any], None]]] = field(
        default_factory=dict, init=False
    )

    def register(self, message_type: type[M], take: Callable[[M], None]) -> None:
        """Have ``take`` called with each message of this type, after those already registered."""
        self._takers.setdefault(message_type, []).append(take)

    def handle(self, message: Request) -> None:
        """Give ``message`` to its services; a request that has none is refused."""
        takers = self._takers.get(type(message), [])
        for take in takers:
            take(message)
        if not takers and not isinstance(message, Cancel):
            error = InvalidRequest(self.otherwise, at=("model",))
            self.send(refusal(message, error))


def services_of(model: Loaded, settings: WorkerSettings, send: Send) -> Services:
    """Everything that ``model`` can do."""
    services = _services_of_kind(model, settings, send)
    tokens = TokenService(model.vocabulary, send)
    services.threads["tokens"] = tokens.run
    services.register(Tokenize, tokens.submit)
    return services


def _services_of_kind(model: Loaded, settings: WorkerSettings, send: Send) -> Services:
    match model:
        case GenerationModel():
            return _generation(model, settings, send)
        case EmbeddingModel():
            return _embeddings(model, settings, send)
        case RankingModel():
            return _ranking(model, settings, send)
        case VocabularyOnly():
            return _prompts(
                model,
                send,
                otherwise=f"Only the vocabulary of the model {model.info.model_id!r} is loaded.",
                heartbeat=lambda: Heartbeat(step_seconds=0.0, stats=EngineStats()),
            )


def _generation(model: GenerationModel, settings: WorkerSettings, send: Send) -> Services:
    def send_events(events: list[Event]) -> None:
        if events:
            send(StepEvents(events=events))

    whole_states = not model.context.partial_removal
    disk = on_disk(model.info, model.files, settings, whole_states=whole_states)
    engine = Engine(
        model.context,
        send_events,
        parallel=settings.parallel,
        inter_token_budget=settings.itl_budget_ms / 1000,
        prompt_lookup=settings.prompt_lookup,
        threads=model.info.threads,
        on_gpu=model.info.gpu_layers > 0,
        stored_tokens=model.stored_tokens,
        prefix_tier=disk.prefixes if disk else None,
        encode=model.projector.encode if model.projector else None,
        drafter=_drafter(model, settings),
    )

    def keep_prefixes() -> None:
        if disk is not None:
            end = time.monotonic() + settings.drain_seconds
            give_way()  # other models' streams go on
            disk.answers.close(settings.drain_seconds)
            engine.keep_prefixes(max(end - time.monotonic(), 0.0))
            disk.prefixes.close(end - time.monotonic())

    def heartbeat() -> Heartbeat:
        counters = disk.prefixes.counters if disk else DiskCounters()
        beat = engine_heartbeat(engine, model.context, embeddings, counters)
        return msgspec.structs.replace(beat, preparing=model.compiler.is_being_built)

    preparer = Preparer(model, engine, send, queue_size=settings.queue_size, disk=disk)
    embeddings = EmbeddingService(model, send, queue_size=settings.queue_size)
    threads = {"preparer": preparer.run, "embeddings": embeddings.run}
    model.compiler.before_build = lambda: send(heartbeat())
    threads["compiler"] = lambda: model.compiler.build_when(lambda: engine.idle)
    if engine.encodings is not None:
        threads["images"] = partial(engine.encodings.run, disk.images if disk else None)
    services = Services(
        info=model.info,
        send=send,
        otherwise=f"The model {model.info.model_id!r} generates and embeds; it does nothing else.",
        run=engine.run,
        stop=engine.stop,
        heartbeat=heartbeat,
        fail_current=preparer.fail_current,
        threads=threads,
        close=keep_prefixes,
    )
    services.register(Generate, preparer.generate)
    services.register(Render, preparer.render)
    services.register(Embed, embeddings.submit)
    services.register(Cancel, lambda message: preparer.cancel(message.id))
    services.register(Cancel, lambda message: embeddings.cancel(message.id))
    return services


def _drafter(model: GenerationModel, settings: WorkerSettings) -> DraftModel | OwnHead | None:
    """What drafts for ``model``: a smaller one that was loaded with it, or its own head."""
    if model.draft is None:
        return None
    if model.draft.is_head:
        return OwnHead(model.draft)
    return DraftModel(
        model.draft,
        vocabulary_size=model.context.vocabulary_size,
        inter_token_budget=settings.itl_budget_ms / 1000,
    )


def _embeddings(model: EmbeddingModel, settings: WorkerSettings, send: Send) -> Services:
    embeddings = EmbeddingService(model, send, queue_size=settings.queue_size)
    stats = EngineStats(threads=model.info.threads)
    services = _prompts(
        model,
        send,
        otherwise=(f"The model {model.info.model_id!r} computes embeddings; it does not generate."),
        heartbeat=lambda: Heartbeat(step_seconds=embeddings.step_seconds, stats=stats),
    )
    services.threads["embeddings"] = embeddings.run
    services.register(Embed, embeddings.submit)
    services.register(Cancel, lambda message: embeddings.cancel(message.id))
    return services


def _ranking(model: RankingModel, settings: WorkerSettings, send: Send) -> Services:
    ranking = RankingService(model, send, queue_size=settings.queue_size)
    stats = EngineStats(threads=model.info.threads)
    services = _prompts(
        model,
        send,
        otherwise=(
            f"The model {model.info.model_id!r} ranks texts; it does not generate, and it computes "
            "no embeddings."
        ),
        heartbeat=lambda: Heartbeat(step_seconds=ranking.step_seconds, stats=stats),
    )
    services.threads["ranking"] = ranking.run
    services.register(Rank, ranking.submit)
    services.register(Cancel, lambda message: ranking.cancel(message.id))
    return services


def _prompts(
    model: EmbeddingModel | RankingModel | VocabularyOnly,
    send: Send,
    *,
    otherwise: str,
    heartbeat: Callable[[], Heartbeat],
) -> Services:
    """A service that shows prompts, on the main thread; others may be registered beside it."""
    renders: RequestQueue[Render] = RequestQueue(
        lambda request: send(render(model, request)),
        send,
        failure="The prompt could not be rendered",
    )
    services = Services(
        info=model.info,
        send=send,
        otherwise=otherwise,
        run=renders.run,
        stop=renders.stop,
        heartbeat=heartbeat,
        fail_current=renders.fail_current,
    )
    services.register(Render, renders.put)
    return services


def engine_heartbeat(
    engine: Engine, backend: Backend, embeddings: EmbeddingService, on_disk: DiskCounters
) -> Heartbeat:
    """How long the current step, or embeddings beside it, have taken, and the counters."""
    started = engine.step_started
    step_seconds = 0.0 if started is None else time.monotonic() - started
    return Heartbeat(
        step_seconds=max(step_seconds, embeddings.step_seconds),
        stats=EngineStats(
            active=engine.active,
            waiting=engine.waiting,
            kv_cells=backend.kv_cells,
            kv_cells_used=engine.cells_used,
            threads=engine.threads,
            steps_total=engine.counters.steps,
            prompt_tokens_total=engine.counters.prompt_tokens,
            generated_tokens_total=engine.counters.generated_tokens,
            cached_tokens_total=engine.counters.cached_tokens,
            preemptions_total=engine.counters.preemptions,
            draft_tokens_total=engine.counters.draft_tokens,
            accepted_draft_tokens_total=engine.counters.accepted_draft_tokens,
            draft_models=int(engine.has_drafter),
            answers_repeat=int(backend.repeats(None)),
            disk_reads_total=on_disk.read,
            disk_read_bytes_total=on_disk.read_bytes,
            disk_tokens_total=on_disk.read_cells,
            disk_seconds_saved=on_disk.read_cells * engine.prompt_token_seconds,
            disk_writes_total=on_disk.written,
            disk_written_bytes_total=on_disk.written_bytes,
            disk_unusable_total=on_disk.unusable,
        ),
    )
