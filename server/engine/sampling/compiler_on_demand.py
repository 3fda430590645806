"""A model's grammar compiler, which is built when it is needed or when there is time for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from llguidance import LLTokenizer

from server.engine.sampling.matcher import GrammarCompiler

# The pause between two looks for time to build it, and how many in a row must find the model idle.
# Requests, and an unload, wait while it is built; choices.
_LOOK_SECONDS = 1.0
_IDLE_LOOKS = 5


class CompilerOnDemand:
    """Builds a compiler once; thread-safe.

    Its tokenizer takes 0.2 s at 49k and 0.8 s at 262k tokens. For most of that llguidance holds the
    GIL, so a first answer that needs no grammar would wait for it.
    """

    def __init__(self, make_tokenizer: Callable[[], LLTokenizer], vocabulary_size: int) -> None:
        """``make_tokenizer`` makes the model's tokenizer in llguidance's form."""
        self._make_tokenizer = make_tokenizer
        self._vocabulary_size = vocabulary_size
        self._building = threading.Lock()
        self._built: GrammarCompiler | None = None
        self.is_being_built = False
        #: Called before it is built, after which no other thread may run for a while.
        self.before_build: Callable[[], None] = lambda: None

    @property
    def is_built(self) -> bool:
        """Whether `get` returns at once."""
        return self._built is not None

    def get(self) -> GrammarCompiler:
        """The compiler, built now if it was not before."""
        with self._building:
            if self._built is None:
                self.is_being_built = True
                try:
                    self.before_build()
                    tokenizer = self._make_tokenizer()
                finally:
                    self.is_being_built = False
                self._built = GrammarCompiler(tokenizer, vocabulary_size=self._vocabulary_size)
            return self._built

    def build_when(self, idle: Callable[[], bool]) -> None:
        """Wait until ``idle`` has been true for 5 s, or the compiler was needed, and build it."""
        looks = 0
        while not self.is_built:
            time.sleep(_LOOK_SECONDS)
            looks = looks + 1 if idle() else 0
            if looks == _IDLE_LOOKS:
                self.get()
