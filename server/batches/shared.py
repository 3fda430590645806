"""What all batches of a server share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property

from server.batches.application import Application
from server.batches.model_turns import ModelTurns
from server.store.file_folder import FileFolder
from server.store.store import Store
from server.store.work_marks import WorkMarks


@dataclass(frozen=True, kw_only=True)
class Shared:
    """What a batch works with.

    Attributes:
        store: Has the states of batches.
        files: Has their lines and results.
        marks: Say which batches there is work for.
        application: Answers their lines.
        find_model: Raises ModelNotFound for a model that there is not.
        elsewhere: Whether another server with the same store has a model that is not here.
        keys: The digests of the valid API keys; without any, requests need none.
        counted: Called with endpoint and status of each line that has a result.
        most_bytes: The most bytes of a line.
        parallel: The most lines that are answered at once, of all batches together.
        days: Days after which a batch that has ended is forgotten.
        turns: Lets batches of one model run at a time.
    """

    store: Store
    files: FileFolder
    marks: WorkMarks
    application: Application
    find_model: Callable[[str], object]
    elsewhere: Callable[[str], bool]
    keys: Callable[[], Iterable[str]]
    counted: Callable[[str, int], None]
    most_bytes: int
    parallel: int
    days: float
    turns: ModelTurns = field(default_factory=ModelTurns)

    @cached_property
    def slots(self) -> asyncio.Semaphore:
        """As many as lines are answered at once."""
        return asyncio.Semaphore(self.parallel)

    def here(self, models: Iterable[str]) -> set[str]:
        """``models`` without those that only other servers have."""
        return {model for model in set(models) if not self.elsewhere(model)}

    def check_model(self, model: str) -> None:
        """Raises ModelNotFound for a model that no server has."""
        if not self.elsewhere(model):
            self.find_model(model)

    async def key_of(self, owner: str) -> str | None:
        """The digest of the API key whose records are ``owner``'s; None if it is valid no longer.

        Without keys it is empty, and so is the owner.
        """
        for digest in ("", *self.keys()):
            if await self.store.owner(digest) == owner:
                return digest
        return None
