"""Passing a request on to a replica, and its answer back."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Scope, Send

from server.api.error_responses import ErrorResponses
from server.cluster.affinity.replica_choice import home_of
from server.cluster.front.hops import answer_headers, request_head
from server.cluster.front.incoming import Incoming
from server.cluster.front.interruption import last_event
from server.cluster.front.membership import Member, Members
from server.cluster.front.upstream import AnswerHead, Connection, Cut, Nonsense, Unreachable
from server.cluster.front_only import ELSEWHERE_HEADER, UNANSWERED, UNTOUCHED
from server.cluster.routing import Router
from server.core.errors import DragomanError, Overloaded, WorkerDied
from server.core.ids import ANSWER_LETTERS, random_id
from server.http.errors import BadGateway

logger = logging.getLogger(__name__)

# How long a request waits for a replica: the time in which one reports again to a front that was
# started anew, and more. A choice.
_PATIENCE_SECONDS = 3.0
_RETRY_SECONDS = 5.0
_BAD_REQUEST = 400
REPLICA_HEADER = b"x-dragoman-replica"
"""In an answer: the id of the replica that gave it."""


class Elsewhere(Exception):
    """The replica takes no more requests."""


class Refused(Exception):
    """The replica refuses a request that names no model: that of another group may know one.

    Attributes:
        answer: The refusal, as messages of ASGI.
    """

    def __init__(self, *answer: Message) -> None:
        super().__init__()
        self.answer = answer


class Forwarding:
    """Passes requests on.

    A request is tried on one replica after another until one begins to answer. Where that would do
    twice what must be done once, it is tried again only if the replica saw nothing of it. One that
    names no model is asked of each group, in their order, until one does not refuse it.

    Args:
        members: The replicas.
        router: Chooses among them.
        key: The key of the cluster.
        respond: Makes the answers that tell of errors of the front.
        most_bytes: A larger body is not held for a second attempt.
        receive_seconds: How long a client may take to send its body.
    """

    def __init__(
        self,
        members: Members,
        router: Router,
        *,
        key: str,
        respond: ErrorResponses,
        most_bytes: int,
        receive_seconds: float,
    ) -> None:
        self._members = members
        self._router = router
        self._key = key
        self._respond = respond
        self._most_bytes = most_bytes
        self._receive_seconds = receive_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; it is given up where its client leaves.

        Raises a DragomanError where no replica answers, and RequestTimeout.
        """
        incoming = Incoming(scope, receive, most_bytes=self._most_bytes)
        try:
            await incoming.collect(self._receive_seconds)
        except ClientDisconnect:
            return
        answering = asyncio.create_task(self._answer(scope, incoming, send))
        watching = asyncio.create_task(incoming.gone())
        try:
            await asyncio.wait({answering, watching}, return_when=asyncio.FIRST_COMPLETED)
            if not answering.done():
                return
            if (problem := answering.result()) is not None:
                raise problem
        finally:
            answering.cancel()
            watching.cancel()
            await asyncio.gather(answering, watching, return_exceptions=True)

    async def _answer(self, scope: Scope, incoming: Incoming, send: Send) -> DragomanError | None:
        """Let a replica answer; returns the error where none does."""
        tries = _Tries()
        while True:
            found = await self._members.serving_soon(incoming.model, _PATIENCE_SECONDS)
            if not (untried := tries.left(found)):
                return await tries.conclude(send)
            member = self._choose(incoming, untried)
            tries.replicas.add(member.said.id)
            try:
                await self._pass_on(member, scope, incoming, send)
            except Unreachable as error:
                logger.warning("replica %s cannot be reached: %s", member.said.id, error)
                member.suspect = True
            except Elsewhere:
                continue
            except Refused as error:
                tries.refusals[member.said.group] = error
            except Cut as error:
                loss = _loss(member, error)
                if not incoming.repeatable:
                    return loss
                tries.note(loss)
            except ClientDisconnect:
                return None
            else:
                return None

    def _choose(self, incoming: Incoming, untried: Sequence[Member]) -> Member:
        if incoming.unnamed:
            untried = self._members.of_first_group(untried)
        loads = {member.said.id: member.in_flight for member in untried}
        chosen = self._router.choose(incoming.asked, loads)
        return next(member for member in untried if member.said.id == chosen)

    async def _pass_on(self, member: Member, scope: Scope, incoming: Incoming, send: Send) -> None:
        """Let ``member`` answer.

        Raises:
            Unreachable: It could not be reached.
            Elsewhere: It takes no more requests.
            Refused: The request names no model, and it does not know which one is meant.
            Nonsense: It gave no sensible answer, and the client got nothing yet.
            Cut: So, since it was lost.
        """
        member.in_flight += 1
        try:
            try:
                # An idle connection may end just when it is used. That is not the replica's end.
                await self._over(member, scope, incoming, send, fresh=not incoming.repeatable)
            except Nonsense:
                raise
            except Cut:
                if not incoming.repeatable:
                    raise
                await self._over(member, scope, incoming, send, fresh=True)
        finally:
            member.in_flight -= 1

    async def _over(
        self, member: Member, scope: Scope, incoming: Incoming, send: Send, *, fresh: bool
    ) -> None:
        connection = await member.upstream.open(fresh=fresh)
        with member.using(connection):
            body = incoming.whole
            length = None if body is None else len(body)
            if incoming.stored:
                incoming.attempts.append(_attempt_name(member))
            head = request_head(dict(scope), self._key, length=length, attempts=incoming.attempts)
            await connection.ask(
                scope["method"].encode(), head, incoming.parts() if body is None else body
            )
            answer = await connection.head()
            headers = Headers(raw=answer.headers)
            ending = dict(answer.headers).get(ELSEWHERE_HEADER)
            if ending == UNTOUCHED or (ending == UNANSWERED and incoming.repeatable):
                raise Elsewhere
            if "content-length" in headers and headers.get("content-type") == "application/json":
                # It comes at once, and another replica can answer as long as none of it was sent.
                whole = b"".join([part async for part in connection.parts()])
                body_message = {"type": "http.response.body", "body": whole}
                if answer.status == _BAD_REQUEST and incoming.unnamed:
                    raise Refused(_start(answer, member), body_message)
                await send(_start(answer, member))
                await send(body_message)
                return
            await send(_start(answer, member))
            if headers.get("content-type", "").startswith("text/event-stream"):
                await self._relay_events(connection, scope["path"], send)
            else:
                await _relay(connection, send)

    async def _relay_events(self, connection: Connection, path: str, send: Send) -> None:
        """Pass events on whole, so that one that tells of the replica's end can follow."""
        held, last = b"", b""
        try:
            async for part in connection.parts():
                whole, end, rest = (held + part).rpartition(b"\n\n")
                held = rest
                if end:
                    last = whole + end
                    await send({"type": "http.response.body", "body": last, "more_body": True})
        except Cut:
            held = last_event(
                WorkerDied("The replica was lost while it answered."),
                path=path,
                respond=self._respond,
                before=last,
            )
        await send({"type": "http.response.body", "body": held})


class _Tries:
    """What has become of a request so far.

    Attributes:
        replicas: Ids of those that were asked.
        refusals: Those of groups that do not know which model it means.
        problem: What its client hears where no replica answers.
    """

    def __init__(self) -> None:
        self.replicas: set[str] = set()
        self.refusals: dict[str, Refused] = {}
        self.problem: DragomanError = Overloaded(
            "No replica can answer now.", retry_after=_RETRY_SECONDS
        )

    def left(self, found: Iterable[Member]) -> list[Member]:
        """Those of ``found`` that are still to be asked."""
        return [
            member
            for member in found
            if not (member.said.id in self.replicas or member.said.group in self.refusals)
        ]

    def note(self, loss: DragomanError) -> None:
        """Note that a replica was lost, or answered nonsense, which its client should hear of."""
        if isinstance(loss, BadGateway):
            self.problem = loss

    async def conclude(self, send: Send) -> DragomanError | None:
        """Send the first refusal if there is one; returns the problem otherwise."""
        if not self.refusals:
            return self.problem
        for message in next(iter(self.refusals.values())).answer:
            await send(message)
        return None


async def _relay(connection: Connection, send: Send) -> None:
    """Pass the body on. If it is cut short, the client's connection is too: it has no other way."""
    try:
        async for part in connection.parts():
            await send({"type": "http.response.body", "body": part, "more_body": True})
    except Cut:
        logger.warning("a replica was lost in the middle of a body")
        return
    await send({"type": "http.response.body", "body": b""})


def _loss(member: Member, error: Cut) -> DragomanError:
    """What a client hears that no other replica answers."""
    if isinstance(error, Nonsense):
        return BadGateway("The replica gave no sensible answer.")
    logger.warning("replica %s was lost before it answered", member.said.id)
    return WorkerDied("The replica was lost before it answered.")


def _attempt_name(member: Member) -> str:
    """The letters of an id that name the replica, as it would choose them itself."""
    home = home_of(member.said.id)
    return random_id(ANSWER_LETTERS - len(home)) + home


def _start(answer: AnswerHead, member: Member) -> Message:
    kept = answer_headers(answer.status, answer.headers)
    headers = [*kept, (REPLICA_HEADER, member.said.id.encode())]
    return {"type": "http.response.start", "status": answer.status, "headers": headers}
