"""The replicas that report to the front."""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

import msgspec

from server.cluster.announcements import SILENT_SECONDS, Announcement, Served, decode, encode
from server.cluster.front.upstream import Connection, Upstream
from server.core.model_names import fits

logger = logging.getLogger(__name__)

NONSENSE_SECONDS = 10.0
"""How long a replica that answered nonsense is asked nothing. A choice."""


class Member:
    """A replica as the front sees it.

    Attributes:
        said: Its latest announcement.
        in_flight: Requests that the front has passed on and that are not answered yet.
        suspect: Whether it could not be reached since then, or gave no sensible answer lately.
        upstream: The connections to it.
    """

    def __init__(self, said: Announcement) -> None:
        self.said = said
        self.in_flight = 0
        self.suspect = False
        self.upstream = Upstream(said.host, said.port)
        self._left_out_until = 0.0
        self._used: set[Connection] = set()

    @property
    def serving(self) -> bool:
        """Whether it takes requests."""
        return self.said.ready and not (self.said.draining or self.suspect)

    def hear(self, said: Announcement) -> None:
        """Take note of a new announcement."""
        self.said = said
        self.suspect = asyncio.get_running_loop().time() < self._left_out_until

    def leave_out(self) -> None:
        """Ask it nothing for `NONSENSE_SECONDS`: what it answered was nonsense."""
        logger.error("replica %s answered nonsense", self.said.id)
        self._left_out_until = asyncio.get_running_loop().time() + NONSENSE_SECONDS
        self.suspect = True

    @contextmanager
    def using(self, connection: Connection) -> Iterator[None]:
        """Use ``connection``, which ends if the replica is lost meanwhile."""
        self._used.add(connection)
        try:
            yield
        finally:
            self._used.discard(connection)
            self.upstream.release(connection)
            if connection.nonsense:
                self.leave_out()

    def cut(self) -> None:
        """End all connections: the replica will not answer."""
        for connection in list(self._used):
            connection.close()
        self.upstream.close()


class Members:
    """All replicas of the cluster, from the connections over which they report.

    A replica whose connection ends gets no more requests. What it is answering goes on, as only
    that connection may be lost; it is cut off once the replica has been silent for
    ``silent_seconds``.

    Args:
        key: The key of the cluster.
        served: Names of the models of each group, in the order of the groups, until its replicas
            say more.
        silent_seconds: See above.
    """

    def __init__(
        self,
        key: str,
        served: Mapping[str, Iterable[str]],
        *,
        silent_seconds: float = SILENT_SECONDS,
    ) -> None:
        self._key = key.encode()
        self._silent_seconds = silent_seconds
        self._served = {group: set(models) for group, models in served.items()}
        # What all replicas serve, and which line of it each connection was told last.
        self._all_served = self._encoded()
        self._told: dict[asyncio.StreamWriter, bytes] = {}
        self._members: dict[str, Member] = {}
        self._lost: dict[str, asyncio.TimerHandle] = {}
        self._changed = asyncio.Event()
        self._writers: set[asyncio.StreamWriter] = set()

    def all(self) -> list[Member]:
        """Every replica that reports."""
        return [member for id_, member in self._members.items() if id_ not in self._lost]

    def find(self, id_: str) -> Member:
        """The replica of this id."""
        return self._members[id_]

    def serving(self, model: str | None) -> list[Member]:
        """The replicas that can answer a request for ``model`` now.

        Without a model, and for one that no replica knows, any can: it tells the client what is
        wrong.
        """
        members = self.all()
        knowing = [member for member in members if _knows(member, model)]
        return [member for member in knowing or members if member.serving]

    def of_first_group(self, members: Sequence[Member]) -> list[Member]:
        """Those of ``members``, at least one, whose group the cluster has first.

        Which model a request means that names none must not depend on how busy replicas are.
        """
        groups = {member.said.group for member in members}
        first = next(group for group in self._served if group in groups)
        return [member for member in members if member.said.group == first]

    async def serving_soon(self, model: str | None, seconds: float) -> list[Member]:
        """`serving`, but if there is none, as soon as there is one within ``seconds``."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not (found := self.serving(model)):
                    self._changed.clear()
                    await self._changed.wait()
                return found
        return []

    async def hear(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Follow one replica's connection to its end."""
        said: Announcement | None = None
        self._writers.add(writer)
        try:
            if not hmac.compare_digest((await self._line(reader)).strip(), self._key):
                logger.warning("a connection without the key of the cluster was closed")
                return
            while line := await self._line(reader):
                said = decode(line)
                self._adopt(said)
                self._told.setdefault(writer, b"")
                self._tell()
        except TimeoutError:
            if said is not None:
                logger.warning("the replica %s is silent", said.id)
                self._forget(said.id)
                said = None
        except (OSError, ValueError, msgspec.DecodeError) as error:
            logger.warning("the connection of a replica failed: %s", error)
        finally:
            self._writers.discard(writer)
            self._told.pop(writer, None)
            writer.close()
            if said is not None:
                self._lose(said.id)

    def close(self) -> None:
        """Hear no more."""
        for handle in self._lost.values():
            handle.cancel()
        for writer in list(self._writers):
            writer.close()

    async def _line(self, reader: asyncio.StreamReader) -> bytes:
        async with asyncio.timeout(self._silent_seconds):
            return await reader.readline()

    def _adopt(self, said: Announcement) -> None:
        if (handle := self._lost.pop(said.id, None)) is not None:
            handle.cancel()
        member = self._members.get(said.id)
        if member is None:
            logger.info("replica %s of %s at %s:%d", said.id, said.group, said.host, said.port)
            self._members[said.id] = Member(said)
            self._learn(said.group)
        else:
            before = member.said.models
            member.hear(said)
            if said.models != before:
                self._learn(said.group)
        self._changed.set()

    def _learn(self, group: str) -> None:
        """Note what the replicas of ``group`` serve; without any, it is what they served last."""
        here = [member.said.models for member in self.all() if member.said.group == group]
        if here:
            self._served[group] = set().union(*here)
            self._all_served = self._encoded()

    def _encoded(self) -> bytes:
        return encode(Served(models=sorted(set().union(*self._served.values()))))

    def _tell(self) -> None:
        """Tell each replica what all of them serve, if it does not know."""
        for writer, told in self._told.items():
            if told != self._all_served:
                writer.write(self._all_served)
                self._told[writer] = self._all_served

    def _lose(self, id_: str) -> None:
        """The connection ended."""
        if id_ in self._members and id_ not in self._lost:
            logger.info("replica %s has left", id_)
            loop = asyncio.get_running_loop()
            self._lost[id_] = loop.call_later(self._silent_seconds, self._forget, id_)

    def _forget(self, id_: str) -> None:
        if (handle := self._lost.pop(id_, None)) is not None:
            handle.cancel()
        member = self._members.pop(id_)
        member.cut()
        self._learn(member.said.group)


def _knows(member: Member, model: str | None) -> bool:
    return model is not None and fits(model, member.said.models)
