"""A model that sums conversations up, for the tests of both families that ask for that."""

from __future__ import annotations

from collections.abc import Iterable

from server.core.errors import ContextLengthExceeded
from server.core.events import Event, Failed
from server.core.request import ChatPrompt, GenerationRequest
from server.reply.builtin_formats import builtin_format
from tests.api.fakes import FakePool, answer, letters


def answering(context: int = 10**9, summed_up: tuple[str, ...] = ("Half ", "done. ")) -> FakePool:
    """A model whose letters are tokens; it sums up where it is asked to, or says that it is done.

    A prompt of more than ``context`` letters is too long.
    """

    def script(request: GenerationRequest) -> Iterable[Event]:
        assert isinstance(request.prompt, ChatPrompt)
        tokens = letters(request.prompt)
        if tokens > context:
            error = ContextLengthExceeded(
                "Too long.", at=("prompt",), numbers={"tokens": tokens, "most": context}
            )
            return [Failed(id=1, error=error.info)]
        return answer(request, *(summed_up if request.reasoning_budget == 0 else ("Done.",)))

    pool = FakePool(script, builtin_format("hermes"))
    pool.client.letters_are_tokens = True
    return pool
