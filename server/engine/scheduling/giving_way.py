"""How far sequences that give way take part in a step, so that the others hardly notice them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from server.engine.scheduling.pace import LEAST_CHUNK, Pace
from server.engine.scheduling.step import Step
from server.engine.sequence import SequenceState

# The longest step that prompts which give way should take alone, in seconds: a request that arrives
# waits for its end. A choice; the smallest chunk takes as long with a model of 135 million
# parameters on two cores.
_INTERRUPTIBLE_SECONDS = 0.05
# How much longer a step may become, in steps of one token, for the rows of sequences that give way
# beside others; a choice. One row is always among them, so that none starves.
_EXTRA_COST = 0.5


def working(
    running: Sequence[SequenceState], pace: Pace, *, decodes: Callable[[SequenceState], bool]
) -> list[SequenceState]:
    """Those of the ``running`` sequences, in line, that take part in the next step.

    Sequences that give way pause beside others' prompts. Beside others' answers, as many answers
    of theirs go on as `_EXTRA_COST` allows, or the first prompt of theirs.
    """
    first = [s for s in running if not s.gives_way]
    others = running[len(first) :]
    if not (first and others):
        return list(running)
    if any(s.in_prompt for s in first):
        return first
    if not decodes(others[0]):
        return [*first, others[0]]
    rows = max(1, int(_EXTRA_COST / pace.row_cost))
    return first + [s for s in others if decodes(s)][:rows]


def prompt_room(step: Step, pace: Pace, batch_size: int, *, alone: bool) -> int:
    """How many more prompt tokens that give way ``step`` has room for.

    ``alone``: it computes nothing else.
    """
    if not alone or step.decodes:
        most = LEAST_CHUNK
    else:
        most = pace.prefill_tokens_within(_INTERRUPTIBLE_SECONDS, batch_size)
    return most - sum(work.count for work in step.prefills)
