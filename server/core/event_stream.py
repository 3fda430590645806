"""Reading server-sent events: https://html.spec.whatwg.org/multipage/server-sent-events.html."""

from __future__ import annotations

import msgspec

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class ServerSentEvent(msgspec.Struct, frozen=True, gc=False):
    """One event; LF joins its lines of data."""

    data: bytes
    type: bytes = b"message"


class EventStreamParser:
    """Parses one event stream, whose bytes may be cut anywhere.

    Lines end in LF, CR or CR LF. Comments are skipped, and so are ``id``, ``retry`` and unknown
    fields, since clients here never reconnect. An event without its empty line is dropped.
    """

    def __init__(self) -> None:
        self._line = b""
        self._at_start = True
        self._after_cr = False
        self._data: list[bytes] = []
        self._type = b""

    def feed(self, piece: bytes) -> list[ServerSentEvent]:
        """The events that the next ``piece`` of the stream, which is not empty, completes."""
        if self._after_cr and piece.startswith(b"\n"):
            piece = piece[1:]
        self._after_cr = piece.endswith(b"\r")
        text = self._line + piece
        lines = text.splitlines()
        self._line = lines.pop() if text and not text.endswith((b"\n", b"\r")) else b""
        if lines and self._at_start:
            self._at_start = False
            lines[0] = lines[0].removeprefix(_BYTE_ORDER_MARK)
        events = []
        for line in lines:
            if line:
                field, _, value = line.partition(b":")
                if field == b"data":
                    self._data.append(value.removeprefix(b" "))
                elif field == b"event":
                    self._type = value.removeprefix(b" ")
            else:
                if self._data:
                    events.append(ServerSentEvent(b"\n".join(self._data), self._type or b"message"))
                self._data, self._type = [], b""
        return events
