"""Servers that make responses in the background, and whether they are still there."""

from __future__ import annotations

import time

from sqlalchemy import Connection, insert, select, update

from server.core.process_name import has_ended
from server.store.kinds import RUNNER_SECONDS
from server.store.schema import runners


class Runners:
    """The servers that were seen lately."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def see(self, runner: str) -> None:
        """Note that the server ``runner`` is there."""
        seen = {"seen_at": time.time()}
        found = self._connection.execute(update(runners).where(runners.c.id == runner).values(seen))
        if not found.rowcount:
            self._connection.execute(insert(runners).values(id=runner, **seen))

    def is_gone(self, runner: str) -> bool:
        """Whether the server ``runner`` has ended on this system, or was not seen elsewhere.

        It counts as seen for `RUNNER_SECONDS`.
        """
        if has_ended(runner.rpartition("_")[2]):
            return True
        seen = self._connection.execute(
            select(runners.c.seen_at).where(runners.c.id == runner)
        ).scalar()
        return seen is None or seen < time.time() - RUNNER_SECONDS
