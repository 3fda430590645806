"""Conversations, and their items."""

from __future__ import annotations

import time
from collections.abc import Iterable

import msgspec
from sqlalchemy import Connection, delete, insert, select, update

from server.store.items import add_items, item_of, page, remove_from_conversation, with_keys
from server.store.kinds import Conversation, Item, Page, PageRequest
from server.store.schema import conversations, items


class Conversations:
    """The stored conversations; ``added`` counts the bytes of the items that were appended."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.added = 0

    def get(self, conversation_id: str, owner: str) -> Conversation | None:
        """The conversation, if it is there and ``owner``'s."""
        row = self._connection.execute(
            select(conversations).where(
                conversations.c.id == conversation_id, conversations.c.owner == owner
            )
        ).one_or_none()
        if row is None:
            return None
        return Conversation(
            id=row.id, owner=row.owner, created_at=row.created_at, metadata=bytes(row.metadata)
        )

    def create(self, conversation: Conversation, given: Iterable[Item]) -> None:
        """Store a new conversation that begins with the items ``given``."""
        fields = msgspec.structs.asdict(conversation)
        self._connection.execute(
            insert(conversations).values(**fields, used_at=conversation.created_at)
        )
        self.append(conversation, given)

    def update(self, conversation: Conversation) -> None:
        """Store the conversation's metadata."""
        self._change(conversation, metadata=conversation.metadata)

    def delete(self, conversation: Conversation) -> None:
        """Remove the conversation; responses keep the items that they have with it."""
        remove_from_conversation(self._connection, items.c.conversation_id == conversation.id)
        self._connection.execute(delete(conversations).where(conversations.c.id == conversation.id))

    # --- items ---

    def append(self, conversation: Conversation, added: Iterable[Item]) -> None:
        """Append items."""
        self.added += add_items(
            self._connection,
            inputs=added,
            owner=conversation.owner,
            conversation_id=conversation.id,
        )
        self._change(conversation)

    def context(self, conversation: Conversation) -> list[Item]:
        """All items, oldest first."""
        return with_keys(self._connection, [key for key, _ in self._listed(conversation)])

    def item_ids(self, conversation: Conversation) -> set[str]:
        """The ids of all items."""
        return {name for _, name in self._listed(conversation)}

    def page(self, conversation: Conversation, asked: PageRequest) -> Page:
        """Some of the items; raises UnknownCursor."""
        return page(self._connection, self._listed(conversation), asked)

    def item(self, conversation: Conversation, item_id: str) -> Item | None:
        """The item of this id, the newest if there are several."""
        row = self._connection.execute(
            select(items.c.id, items.c.body)
            .where(items.c.conversation_id == conversation.id, items.c.id == item_id)
            .order_by(items.c.key.desc())
            .limit(1)
        ).one_or_none()
        return None if row is None else item_of(row)

    def delete_item(self, conversation: Conversation, item_id: str) -> None:
        """Remove the items of this id from the conversation."""
        remove_from_conversation(
            self._connection,
            (items.c.conversation_id == conversation.id) & (items.c.id == item_id),
        )
        self._change(conversation)

    def _listed(self, conversation: Conversation) -> list[tuple[int, str]]:
        rows = self._connection.execute(
            select(items.c.key, items.c.id)
            .where(items.c.conversation_id == conversation.id)
            .order_by(items.c.key)
        )
        return [(row.key, row.id) for row in rows]

    def _change(self, conversation: Conversation, **fields: bytes) -> None:
        self._connection.execute(
            update(conversations)
            .where(conversations.c.id == conversation.id)
            .values(used_at=int(time.time()), **fields)
        )
