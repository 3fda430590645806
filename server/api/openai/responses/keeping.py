"""Keeping a response: what it was made from, and what came of it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from server.api.openai.responses.schemas.items import InputItem
from server.api.openai.responses.schemas.response import ResponseObject
from server.api.openai.responses.stored_items import input_items, output_items
from server.api.validation import to_json
from server.core.errors import StoreUnavailable
from server.store import kinds
from server.store.store import Store

if TYPE_CHECKING:
    from server.store.records import Records

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Keeping:
    """Stores one response.

    Attributes:
        store: Where to.
        owner: Whose it is.
        given: The items of its request.
        before: Ids of the items before them.
        previous_id: The response that it goes on from.
        conversation_id: The conversation that it belongs to.
        runner: The server that makes it, if it is made in the background.
    """

    store: Store
    owner: str
    given: str | Sequence[InputItem]
    before: frozenset[str] = frozenset()
    previous_id: str | None = None
    conversation_id: str | None = None
    runner: str | None = None

    async def save(self, response: ResponseObject) -> bool:
        """Store a response that is over; False, and a line in the log, if that fails."""
        try:
            await self.store.write(lambda records: self._save(records, response))
        except StoreUnavailable:  # why is in the log
            _logger.warning("%s is not stored", response.id)
            return False
        return True

    async def queue(self, response: ResponseObject) -> None:
        """Store a response that is to be made; raises StoreUnavailable."""

        def queue(records: Records) -> None:
            assert self.runner is not None, "it is made in the background"
            records.runners.see(self.runner)
            self._save(records, response)

        await self.store.write(queue)

    async def finish(self, response: ResponseObject, events: Sequence[kinds.StoredEvent]) -> None:
        """Store how a queued response ended, and its last events; raises StoreUnavailable."""
        await self.store.write(
            lambda records: records.responses.finish(
                self.record(response), self._inputs, output_items(response.output), events
            )
        )

    def record(self, response: ResponseObject) -> kinds.Response:
        """``response`` without its output, as it is stored."""
        return kinds.Response(
            id=response.id,
            owner=self.owner,
            created_at=response.created_at,
            status=response.status,
            body=to_json(response.model_copy(update={"output": []})),
            previous_id=self.previous_id,
            conversation_id=self.conversation_id,
            runner=self.runner,
        )

    def _save(self, records: Records, response: ResponseObject) -> None:
        records.responses.save(self.record(response), self._inputs, output_items(response.output))

    @cached_property
    def _inputs(self) -> list[kinds.Item]:
        """The items of the request, which get their ids once; made on the store's thread."""
        return input_items(self.given, self.before)
