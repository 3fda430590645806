"""Grammars that a sequence must follow, enforced by llguidance.

A grammar is a string in llguidance's own format. A process of its own (see `rehearsal`) tries it
out first, because llguidance's limits do not bound every compile. If it passes there, it is
compiled here over the model's vocabulary.
"""

from __future__ import annotations

import struct
import subprocess
import sys
import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from llguidance import LLMatcher, LLParserLimits, LLTokenizer
from numpy.typing import NDArray

_REHEARSAL = Path(__file__).with_name("rehearsal.py")
# What a trial may take; a choice. A usual JSON schema compiles in about a millisecond. Elapsed time
# also passes while other processes have the core: it bounds only what blocks, and trials on systems
# that cannot limit processor time.
_CPU_SECONDS = 2.0
_WALL_SECONDS = 30.0


class GrammarError(ValueError):
    """A grammar cannot be used, or cannot continue from its state; the message is llguidance's."""


class GrammarMatcher:
    """One sequence's state in a grammar."""

    def __init__(self, matcher: LLMatcher, vocabulary_size: int) -> None:
        self._matcher = matcher
        self._mask = np.zeros((vocabulary_size + 31) // 32, dtype=np.uint32)

    def allowed(self) -> NDArray[np.uint32]:
        """The tokens that may come next, one bit each, least significant first.

        The next call overwrites the array.

        Raises:
            GrammarError: llguidance cannot continue.
        """
        self._matcher.unsafe_compute_mask_ptr(self._mask.ctypes.data, self._mask.nbytes)
        self._check()
        return self._mask

    def accept(self, token: int) -> None:
        """Advance by ``token``.

        Raises:
            GrammarError: the grammar does not allow it.
        """
        if not self._matcher.consume_token(token):
            self._check()
            raise GrammarError(f"token {token} is not allowed here")

    def forced_tokens(self) -> list[int]:
        """The tokens that must come next whatever the model prefers; this does not accept them."""
        tokens: list[int] = self._matcher.compute_ff_tokens()
        return tokens

    def valid_prefix(self, tokens: Sequence[int]) -> int:
        """How many of ``tokens`` the grammar allows next; this does not accept them."""
        return int(self._matcher.validate_tokens(list(tokens)))

    @property
    def is_complete(self) -> bool:
        """Whether the grammar is satisfied and only the end of the answer can follow."""
        return bool(self._matcher.is_stopped()) and not self._matcher.is_error()

    def fork(self) -> GrammarMatcher:
        """A copy that continues independently."""
        return GrammarMatcher(self._matcher.deep_copy(), self._mask.size * 32)

    def _check(self) -> None:
        if self._matcher.is_error():
            raise GrammarError(_reason(self._matcher.get_error()))


class GrammarCompiler:
    """Compiles grammars for one model and caches the most recently used; thread-safe.

    ``tokenizer`` is the model's own, in llguidance's form.
    """

    def __init__(
        self, tokenizer: LLTokenizer, *, vocabulary_size: int, cached_grammars: int = 64
    ) -> None:
        self._tokenizer = tokenizer
        self._vocabulary_size = vocabulary_size
        self._limits = LLParserLimits(verbose_errors=False)
        self._cached_grammars = cached_grammars
        self._compiled: OrderedDict[str, LLMatcher] = OrderedDict()
        self._compiling = threading.Lock()
        self._caching = threading.Lock()
        self._rehearsal = _Rehearsal()

    def compile(self, grammar: str) -> GrammarMatcher:
        """A matcher at the beginning of ``grammar``.

        Blocks for a few seconds at most and releases the GIL meanwhile.

        Raises:
            GrammarError: llguidance refuses the grammar, or it takes too long.
        """
        with self._compiling:
            matcher = self._cached(grammar)
            if matcher is None:
                self._rehearsal.check(grammar)
                matcher = self._compile(grammar)
                with self._caching:
                    self._compiled[grammar] = matcher
                    if len(self._compiled) > self._cached_grammars:
                        self._compiled.popitem(last=False)
            return GrammarMatcher(matcher.deep_copy(), self._vocabulary_size)

    def try_out(self, grammar: str) -> None:
        """Check ``grammar`` without compiling it.

        For parts of a larger grammar, whose own trial may reach only some of them.

        Raises:
            GrammarError: it cannot be used.
        """
        with self._compiling:
            self._rehearsal.check(grammar)

    def cached(self, grammar: str) -> GrammarMatcher | None:
        """The result of `compile` if the grammar is cached, else None."""
        matcher = self._cached(grammar)
        return (
            None if matcher is None else GrammarMatcher(matcher.deep_copy(), self._vocabulary_size)
        )

    def _cached(self, grammar: str) -> LLMatcher | None:
        with self._caching:
            matcher = self._compiled.get(grammar)
            if matcher is not None:
                self._compiled.move_to_end(grammar)
            return matcher

    def _compile(self, grammar: str) -> LLMatcher:
        matcher = LLMatcher(self._tokenizer, grammar, limits=self._limits, log_level=0)
        # Some grammars fail only when a mask is computed over the vocabulary.
        GrammarMatcher(matcher.deep_copy(), self._vocabulary_size).allowed()
        if matcher.is_error():
            raise GrammarError(_reason(matcher.get_error()))
        return matcher

    def close(self) -> None:
        """End the rehearsal process."""
        self._rehearsal.close()


class _Rehearsal:
    """The rehearsal process, started on first use and again after it was killed."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def check(self, grammar: str) -> None:
        """Try ``grammar`` out.

        Raises:
            GrammarError: it cannot be used.
        """
        process = self._running()
        deadline = threading.Timer(_WALL_SECONDS, process.kill)
        deadline.start()
        try:
            complaint = _ask(process, grammar)
        finally:
            deadline.cancel()
        if complaint is None:
            self.close()
            raise GrammarError("the grammar takes too long or too much memory to compile")
        if complaint:
            raise GrammarError(_reason(complaint))

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self.close()
            self._process = subprocess.Popen(  # noqa: S603 - our own file
                # -P: the file's folder holds modules whose names are not meant to be top-level.
                [sys.executable, "-P", str(_REHEARSAL), str(_CPU_SECONDS)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
        return self._process

    def close(self) -> None:
        """Kill the process and free its pipes."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


def _ask(process: subprocess.Popen[bytes], grammar: str) -> str | None:
    """The complaint about ``grammar``, empty for none; None if it killed the process."""
    assert process.stdin is not None
    assert process.stdout is not None
    message = grammar.encode()
    try:
        process.stdin.write(struct.pack("<I", len(message)) + message)
        process.stdin.flush()
    except BrokenPipeError:
        return None
    header = process.stdout.read(4)
    if len(header) < 4:
        return None
    (length,) = struct.unpack("<I", header)
    return process.stdout.read(length).decode()


def _reason(message: str) -> str:
    """The message on one line, shortened in the middle: llguidance puts the reason at the end."""
    line = " ".join(message.replace("<non-verbose/>", "").split())
    if line == "NoExtensionBias":
        return "nothing can match the grammar"
    return line if len(line) <= 300 else f"{line[:100]} ... {line[-200:]}"
