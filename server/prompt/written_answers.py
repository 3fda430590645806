"""Puts what the model wrote back into later prompts, token by token.

A conversation comes back as text, and a tokenizer may cut a text into other tokens than the model
wrote. From the first different token on, nothing that is cached fits. So the tokens of answers are
kept for a while, and where a later prompt says the same as one of them, it gets those tokens.

Tokens say the same if their bytes are the same and they have the same special tokens in the same
places. So no text of a request can become a special token by this. The cells of images count as
special tokens, too (`server.core.pieces` has their keys).

Templates write calls otherwise than models do: with other white space, escapes or order of keys.
So a turn also says the same as an answer if all tokens before it are those that the answer was
written after, and both are the same message, read in the model's reply format (``turn_reader.py``).

Where prefixes are kept on disk, so are the answers (``answer_log.py``).
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict, deque
from dataclasses import dataclass

import numpy as np

from server.core.request import CacheScope
from server.core.vocabulary import Vocabulary
from server.prompt.answer_index import Answer, AnswerIndex, SaidTokens, Tokens
from server.prompt.answer_log import AnswerLog, KeptAnswer
from server.prompt.turn_reader import Reading

# How far before an answer the special token may be that its turn begins with, in tokens; a choice.
_LONGEST_OPENING = 32
# A special token is this byte and its id. No text in UTF-8 has this byte; a token that is not text
# may be it, and is told apart, since no id has four of them (of images' keys one in 2**30 has).
_MARK = b"\xff"
_MARK_IN_TEXT = 5 * _MARK
_DIGEST_BYTES = 16


@dataclass(frozen=True, slots=True)
class _New:
    """An answer with its opening, of ``opening`` tokens; ``prompt`` is a digest of its prompt."""

    scope: CacheScope
    tokens: Tokens
    opening: int
    prompt: bytes
    reply_prefix: str
    reading: Reading


class WrittenAnswers:
    """The last answers of one model, ``most_tokens`` tokens at most.

    With a ``log``, they are written there as soon as they are known, and those of a cache scope are
    taken from there at its first prompt.

    `remember` may be called from any thread, `put_back` from one.
    """

    def __init__(
        self, vocabulary: Vocabulary, *, most_tokens: int, log: AnswerLog | None = None
    ) -> None:
        self._vocabulary = vocabulary
        self._special = frozenset(token.id for token in vocabulary.special_tokens)
        self._turn_ends = [each for each in self._special if vocabulary.is_end_of_generation(each)]
        self._most_tokens = most_tokens
        self._log = log
        self._new: deque[_New] = deque()
        self._unwritten: deque[tuple[CacheScope, KeptAnswer]] = deque()
        # Held by those who use what follows. Oldest first, by scope, prompt and what they say.
        self._lock = threading.Lock()
        self._kept_tokens = 0
        self._answers: OrderedDict[tuple[CacheScope, bytes, bytes], Answer] = OrderedDict()
        self._indexes: dict[CacheScope, AnswerIndex] = {}
        self._read: set[CacheScope] = set()

    def remember(
        self,
        scope: CacheScope,
        reading: Reading,
        reply_prefix: str,
        tokens: Tokens,
        prompt_length: int,
    ) -> None:
        """Keep the answer that ``tokens`` have after ``prompt_length`` tokens of prompt.

        ``reading`` reads it as what follows ``reply_prefix``. Nothing is kept if no special token
        is near the prompt's end: where the answer's turn begins could not be told in another
        prompt.
        """
        first = max(0, prompt_length - _LONGEST_OPENING)
        near = tokens[first:prompt_length].tolist()
        special = [place for place, token in enumerate(near) if token in self._special]
        if special and len(tokens) > prompt_length:
            start = first + special[-1]
            own, opening = tokens[start:].copy(), prompt_length - start
            prompt = _digest(tokens[:prompt_length]).digest()
            self._new.append(_New(scope, own, opening, prompt, reply_prefix, reading))
            if self._log is not None:
                self._log.submit(self._write_new)

    def put_back(self, scope: CacheScope, reading: Reading, tokens: list[int]) -> list[int]:
        """``tokens`` of a prompt, with those of answers wherever they say the same.

        ``reading`` reads the prompt's turns.
        """
        self._take_new()
        self._read_log(scope)
        with self._lock:
            index = self._indexes.get(scope)
            return tokens if index is None else self._with_answers(index, reading, tokens)

    def _with_answers(self, index: AnswerIndex, reading: Reading, tokens: list[int]) -> list[int]:
        first = next((i for i, token in enumerate(tokens) if token in self._special), len(tokens))
        prompt = self._said(np.array(tokens[first:], dtype=np.int32))
        result, done = tokens[:first], 0
        before = _digest(np.array(result, dtype=np.int32))
        for place in np.flatnonzero(np.isin(prompt.tokens, [*self._special])).tolist():
            if place < done:
                continue
            between = prompt.tokens[done:place]
            before.update(between.tobytes())
            found = self._same_message(index, reading, prompt, place, before)
            written, done = found or _same_bytes(index, prompt, place)
            before.update(written.tobytes())
            result += between.tolist()
            result += written.tolist()
        result += prompt.tokens[done:].tolist()
        return result

    def _same_message(
        self,
        index: AnswerIndex,
        reading: Reading,
        prompt: SaidTokens,
        place: int,
        before: hashlib.blake2b,
    ) -> tuple[Tokens, int] | None:
        """The tokens of the answer that is the turn at ``place``, and where the turn ends."""
        start = prompt.start(place)
        for opening in index.openings:
            if not prompt.said.startswith(opening, start):
                continue
            body = int(np.searchsorted(prompt.ends, start + len(opening))) + 1
            whole = before.copy()
            whole.update(prompt.tokens[place:body].tobytes())
            answers = index.after(whole.digest())
            end = self._end_of_turn(prompt.tokens, body) if answers else None
            if end is None:
                continue
            turn = prompt.said[start : prompt.start(end)]
            found = next((each for each in answers.values() if each.said == turn), None)
            if found is None:
                prefix = next(iter(answers.values())).reply_prefix
                found = answers.get(reading(prompt.tokens[body:end].tolist(), prefix) or b"")
            if found is not None:
                return found.tokens, end
        return None

    def _end_of_turn(self, tokens: Tokens, start: int) -> int | None:
        """The place of the first token from ``start`` that ends an answer."""
        ends = np.flatnonzero(np.isin(tokens[start:], self._turn_ends))
        return start + int(ends[0]) if len(ends) else None

    def _take_new(self) -> None:
        """Make the answers known that were remembered."""
        with self._lock:
            while self._new:
                new = self._new.popleft()
                message = new.reading(new.tokens[new.opening :].tolist(), new.reply_prefix)
                kept = KeptAnswer(
                    tokens=new.tokens.astype("<i4").tobytes(),
                    opening=new.opening,
                    prompt=new.prompt,
                    reply_prefix=new.reply_prefix,
                    message=message,
                )
                if self._add(new.scope, kept) and self._log is not None:
                    self._unwritten.append((new.scope, kept))

    def _write_new(self) -> None:
        """On the log's thread: write the answers that were remembered; raises OSError."""
        assert self._log is not None, "it asked for this"
        self._take_new()
        while self._unwritten:
            self._log.append(*self._unwritten.popleft())

    def _read_log(self, scope: CacheScope) -> None:
        """Take in what the log has of ``scope``, which is older than all that is known of it."""
        if self._log is None or scope in self._read:
            return
        read = self._log.read(scope)
        if read is None:
            return
        self._read.add(scope)
        with self._lock:
            newer = [(key, self._answers[key]) for key in self._answers if key[0] == scope]
            for kept in filter(self._is_possible, read):
                self._add(scope, kept)
            for key, answer in newer:
                self._put(key, answer)

    def _is_possible(self, kept: KeptAnswer) -> bool:
        """Whether an answer from a file has an opening, and tokens of this vocabulary."""
        tokens = np.frombuffer(kept.tokens, dtype="<i4")
        known = (tokens >= 0) & (tokens < self._vocabulary.size)
        return bool(0 < kept.opening < len(tokens) and known.all())

    def _add(self, scope: CacheScope, kept: KeptAnswer) -> bool:
        """Whether ``kept`` can be found, and was not known."""
        tokens = np.frombuffer(kept.tokens, dtype="<i4").astype(np.int32)
        said = self._said(tokens)
        answer = Answer(
            tokens=said.tokens,
            said=said.said,
            ends=said.ends,
            opening=said.said[: int(said.ends[kept.opening - 1])],
            prompt=kept.prompt,
            reply_prefix=kept.reply_prefix,
            message=kept.message,
        )
        if not answer.is_findable:
            return False
        key = scope, answer.prompt, answer.said
        known = self._answers.get(key)
        self._put(key, answer)
        return known is None or not np.array_equal(known.tokens, answer.tokens)

    def _put(self, key: tuple[CacheScope, bytes, bytes], answer: Answer) -> None:
        """Make ``answer`` the newest, and forget the oldest where there are too many tokens."""
        self._drop(key)
        self._answers[key] = answer
        self._kept_tokens += len(answer.tokens)
        self._indexes.setdefault(key[0], AnswerIndex()).add(answer)
        while self._kept_tokens > self._most_tokens:
            self._drop(next(iter(self._answers)))

    def _drop(self, key: tuple[CacheScope, bytes, bytes]) -> None:
        answer = self._answers.pop(key, None)
        if answer is None:
            return
        self._kept_tokens -= len(answer.tokens)
        scope, *_ = key
        self._indexes[scope].remove(answer)
        if not self._indexes[scope].openings:
            del self._indexes[scope]

    def _said(self, tokens: Tokens) -> SaidTokens:
        parts = [
            _MARK + token.to_bytes(4, "little", signed=True)
            if token in self._special or token < 0
            else self._vocabulary.piece(token).replace(_MARK, _MARK_IN_TEXT)
            for token in tokens.tolist()
        ]
        ends = np.cumsum([len(part) for part in parts], dtype=np.int64)
        return SaidTokens(tokens, b"".join(parts), ends)


def _same_bytes(index: AnswerIndex, prompt: SaidTokens, place: int) -> tuple[Tokens, int]:
    """Tokens of an answer for those of the prompt from ``place``, and where these end."""
    start = prompt.start(place)
    nothing = prompt.tokens[place:place], place
    answer, length = index.longest(prompt.said, start)
    if answer is None:
        return nothing
    alike = int(np.searchsorted(prompt.ends, start + length, side="right"))
    # Both have a token that ends there.
    common = np.intersect1d(answer.ends, prompt.ends[place:alike] - start)
    if not len(common):
        return nothing
    theirs = int(np.searchsorted(answer.ends, common[-1])) + 1
    mine = int(np.searchsorted(prompt.ends, start + common[-1])) + 1
    return answer.tokens[:theirs], mine


def _digest(tokens: Tokens) -> hashlib.blake2b:
    return hashlib.blake2b(tokens.tobytes(), digest_size=_DIGEST_BYTES)
