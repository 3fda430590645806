"""State that all endpoints share; one per application."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from dataclasses import dataclass

import msgspec
from fastapi import Request

from server.api.runs import Runs
from server.batches.runner import BatchRunner
from server.core.events import Event
from server.core.pool import Client, Pool
from server.core.pulls import Pulls
from server.core.request import (
    CacheScope,
    ChatPrompt,
    GenerationRequest,
    Prompt,
    images_of,
    unseen,
)
from server.core.settings import Settings
from server.http.drain import Drain
from server.store.file_folder import FileFolder
from server.store.store import Store
from server.telemetry.account import current_account
from server.telemetry.metrics import Metrics


@dataclass(frozen=True)
class Context:
    """The settings, the models, the metrics, what is stored, and what runs without its client.

    ``files`` has what stored files contain, ``batches`` works on batches, and ``drain``
    tells whether the server is about to end.
    """

    settings: Settings
    pool: Pool
    metrics: Metrics
    store: Store
    runs: Runs
    files: FileFolder
    drain: Drain
    batches: BatchRunner
    pulls: Pulls | None

    @property
    def keeps_files(self) -> bool:
        """Whether files are kept, and batches run."""
        return self.settings.files and self.store.enabled

    async def open(self, model: str) -> Client:
        """What `Pool.open` returns for this id or alias; the account of the request names it."""
        account = current_account()
        account.asked = model
        client = await self.pool.open(model)
        account.model = client.info.model_id
        return client

    def check_images(self, model: str, prompts: Iterable[Prompt]) -> None:
        """Refuse images for a model that is known to see none, before it is loaded for them.

        Raises:
            UnsupportedParameter: The first image in ``prompts``.
        """
        messages = (prompt.messages for prompt in prompts if isinstance(prompt, ChatPrompt))
        at = next((place for each in messages for place, _ in images_of(each)), None)
        if at is None:
            return
        known = self.pool.entry(model).known
        if known is not None and known.projector is None:
            raise unseen(at)

    def generate(
        self, client: Client, request: GenerationRequest, scope: CacheScope
    ) -> AsyncGenerator[Event]:
        """What `Client.generate` yields for ``request`` at the priority of its key."""
        if priority := current_account().priority:
            request = msgspec.structs.replace(request, priority=priority)
        return client.generate(request, scope)


def context(request: Request) -> Context:
    """The context of the application that received ``request``."""
    shared: Context = request.app.state.context
    return shared
