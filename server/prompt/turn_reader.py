"""What the tokens of an answer, or of a turn in a prompt, say as a message."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence

from server.core.reply_format import ReplyFormat
from server.core.request import Message, Tool
from server.core.vocabulary import Vocabulary
from server.reply.control_tokens import control_tokens
from server.reply.parser import parse_reply

Reading = Callable[[Sequence[int], str], bytes | None]
"""From tokens, and the reply prefix before them, to a digest of the message that they say.

None: they say none for certain.
"""

_DIGEST_BYTES = 16


class TurnReader:
    """Reads turns of the assistant in the model's own reply format.

    Templates write calls otherwise than models do, with other white space, escapes or order of
    keys, and trim texts. Read in their own format, both say the same message.

    Args:
        vocabulary: The model's tokenizer.
        reply_format: The model's; None: its answers are content only.

    Attributes:
        markers: The texts, by their ids, of the special tokens that the format reads.
    """

    def __init__(self, vocabulary: Vocabulary, reply_format: ReplyFormat | None) -> None:
        self._vocabulary = vocabulary
        self._format = reply_format
        texts = control_tokens(reply_format) if reply_format else frozenset()
        self.markers = {
            token.id: token.text
            for token in vocabulary.special_tokens
            if any(token.text in text for text in texts)
        }
        self._unread = {
            token.id
            for token in vocabulary.special_tokens
            if token.type != "user_defined" and token.id not in self.markers
        }
        calls = reply_format.calls if reply_format else None
        self._writes_ids = calls is not None and "{id}" in calls.call

    def reading(self, tools: Sequence[Tool], *, tolerant: bool) -> Reading:
        """A reading of turns that may call ``tools``; ``tolerant`` as in `ReplyParser`."""

        def read(tokens: Sequence[int], prefix: str) -> bytes | None:
            text = self._text(tokens)
            if text is None:
                return None
            message = parse_reply(
                text,
                self._format,
                prefix=prefix,
                tools_active=bool(tools),
                tools=tools,
                tolerant=tolerant,
            )
            return self._digest(message)

        return read

    def _text(self, tokens: Sequence[int]) -> str | None:
        """The text; None if a token is not text, but for example an image, or spells a marker."""
        if not self._unread.isdisjoint(tokens) or min(tokens, default=0) < 0:
            return None
        try:
            text = b"".join(map(self._vocabulary.piece, tokens)).decode()
        except UnicodeDecodeError:
            return None
        marked = Counter(token for token in tokens if token in self.markers)
        spelt = any(text.count(marker) != marked[token] for token, marker in self.markers.items())
        return None if spelt else text

    def _digest(self, message: Message) -> bytes:
        calls = [
            (call.name, call.id if self._writes_ids else None, _comparable(call.arguments))
            for call in message.tool_calls
        ]
        assert message.content is None or isinstance(message.content, str)
        texts = [(text or "").strip() for text in (message.reasoning_content, message.content)]
        said = json.dumps([*texts, calls])
        return hashlib.blake2b(said.encode(), digest_size=_DIGEST_BYTES).digest()


def _comparable(arguments: str) -> str:
    """JSON text that is the same for equal values, whatever their spelling; else as it is.

    Clients that keep numbers as JavaScript does send 1.0 back as 1.
    """
    try:
        return json.dumps(json.loads(arguments, parse_float=_number), sort_keys=True)
    except (ValueError, RecursionError):
        return arguments


def _number(text: str) -> float | int:
    number = float(text)
    return int(number) if number.is_integer() else number
