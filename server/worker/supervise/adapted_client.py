"""A model as its clients see it with one of its adapters."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import msgspec

from server.core.embeddings import Embeddings, Reading
from server.core.errors import InvalidRequest
from server.core.events import Event
from server.core.model_info import ModelInfo, adapted_id
from server.core.native_prompt import RenderedPrompt
from server.core.ranking import RankingRequest, Scores
from server.core.request import NO_KEY, AdapterUse, CacheScope, GenerationRequest, Prompt
from server.core.tokens import TokenizeRequest, Tokens
from server.worker.supervise.client import ModelClient


class AdaptedClient:
    """A model with its adapter ``name`` (see `server.core.pool.Client`)."""

    def __init__(self, client: ModelClient, name: str) -> None:
        self._client = client
        self._name = name

    @property
    def info(self) -> ModelInfo:
        """Facts about the model, under the id that names the adapter too."""
        info = self._client.info
        return msgspec.structs.replace(info, model_id=adapted_id(info.model_id, self._name))

    def generate(
        self, request: GenerationRequest, scope: CacheScope
    ) -> AsyncGenerator[Event, None]:
        """The events that answer ``request`` with the adapter and with those that it names."""
        adapters = [*request.adapters, AdapterUse(adapter=self._name)]
        return self._client.generate(msgspec.structs.replace(request, adapters=adapters), scope)

    async def render(self, prompt: Prompt, *, scope: CacheScope = NO_KEY) -> RenderedPrompt:
        """``prompt`` as the model with the adapter would get it; the adapter is loaded."""
        adapters = [AdapterUse(adapter=self._name)]
        return await self._client.render(prompt, scope=scope, adapters=adapters)

    async def tokenize(self, request: TokenizeRequest) -> Tokens:
        """What `ModelClient.tokenize` returns: the vocabulary is the model's."""
        return await self._client.tokenize(request)

    async def embed(
        self,
        inputs: list[str | list[int]],
        *,
        dimensions: int | None = None,
        reading: Reading | None = None,
    ) -> Embeddings:
        """Raises InvalidRequest: embeddings are the model's own."""
        raise self._without("Embeddings are computed")

    async def rank(self, request: RankingRequest) -> Scores:
        """Raises InvalidRequest: scores are the model's own."""
        raise self._without("Documents are scored")

    def _without(self, done: str) -> InvalidRequest:
        return InvalidRequest(
            f"{done} without adapters: ask for {self._client.info.model_id!r}.", at=("model",)
        )
