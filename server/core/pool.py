"""The models as the API sees them, whichever processes run them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Protocol

from server.core.embeddings import Embeddings, Reading
from server.core.events import Event
from server.core.model_info import AdapterFile, EngineStats, ModelEntry, ModelInfo, ModelState
from server.core.native_prompt import RenderedPrompt
from server.core.ranking import RankingRequest, Scores
from server.core.request import NO_KEY, CacheScope, GenerationRequest, Prompt
from server.core.tokens import TokenizeRequest, Tokens


class Client(Protocol):
    """A loaded model."""

    @property
    def info(self) -> ModelInfo:
        """Facts about the model."""
        ...

    def generate(
        self, request: GenerationRequest, scope: CacheScope
    ) -> AsyncGenerator[Event, None]:
        """Events of the request, `Accepted` first; an async generator.

        Closing it cancels the request. Raises WorkerDied where the model's process ended.
        """
        ...

    async def render(self, prompt: Prompt, *, scope: CacheScope = NO_KEY) -> RenderedPrompt:
        """The prompt as the model gets it."""
        ...

    async def embed(
        self,
        inputs: list[str | list[int]],
        *,
        dimensions: int | None = None,
        reading: Reading | None = None,
    ) -> Embeddings:
        """The embeddings of the inputs, read as ``reading`` says.

        Raises what the worker refuses them for.
        """
        ...

    async def rank(self, request: RankingRequest) -> Scores:
        """The scores of the documents; raises what the worker refuses them for."""
        ...

    async def tokenize(self, request: TokenizeRequest) -> Tokens:
        """The tokens of texts; raises what the worker refuses them for."""
        ...


class Pool(Protocol):
    """All models."""

    async def close(self, drain_seconds: float) -> None:
        """End requests after at most ``drain_seconds``; a second call ends them at once."""
        ...

    def models(self) -> Sequence[ModelEntry]:
        """Every known model, broken ones included."""
        ...

    def entry(self, model_id: str) -> ModelEntry:
        """The model of this id or alias; raises ModelNotFound."""
        ...

    async def open(self, model_id: str) -> Client:
        """The model, loaded if need be; raises ModelNotFound or ModelUnavailable."""
        ...

    def add_adapter(self, model_id: str, adapter: AdapterFile) -> str:
        """Serve a model with ``adapter`` too; returns their id. Raises ModelNotFound."""
        ...

    def drop_adapter(self, adapted_model_id: str) -> None:
        """Serve a model with its adapter no longer; raises ModelNotFound."""
        ...

    async def unload(self, model_id: str) -> None:
        """Give the model's memory back, now or once its requests are answered.

        Raises ModelNotFound.
        """
        ...

    def unready(self) -> Mapping[str, ModelState]:
        """The models named at start that still load or have failed, with their state."""
        ...

    def stats(self) -> Mapping[str, EngineStats]:
        """The engine's figures of each loaded model."""
        ...

    def restarts(self) -> Mapping[str, int]:
        """How often each model's worker was respawned."""
        ...

    def worker_pids(self) -> Mapping[str, int]:
        """The process id of each model's worker, while one runs."""
        ...
