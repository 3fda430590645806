"""Which result of a request answers which of its calls."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Sequence

from server.api.openai.responses.origin import Placed
from server.api.openai.responses.schemas import items as wire
from server.core.errors import InvalidRequest

CALLS = (wire.FunctionCallItem, wire.CustomToolCallItem)


def results_by_call(placed: Sequence[Placed]) -> dict[int, int]:
    """The index of the result of the call at each index; a call may have none.

    Ids may repeat: a result answers the first call before it that has its id and no result yet.
    One without an id answers the first call of its name, or, if it has no name either, of any.

    Raises InvalidRequest for a result that answers no call.
    """
    with_id: dict[str, deque[int]] = defaultdict(deque)
    unanswered: dict[int, str] = {}
    results: dict[int, int] = {}
    for index, (item, at) in enumerate(placed):
        if isinstance(item, CALLS):
            with_id[item.call_id].append(index)
            unanswered[index] = item.name
        elif isinstance(item, wire.CallOutputItem):
            call = _call_of(item, with_id, unanswered)
            if call is None:
                raise InvalidRequest(
                    f"No tool call found for function call output with call_id "
                    f"{str(item.call_id)[:100]}.",
                    at=(*at, "call_id"),
                )
            del unanswered[call]
            results[call] = index
    return results


def _call_of(
    result: wire.CallOutputItem, with_id: dict[str, deque[int]], unanswered: dict[int, str]
) -> int | None:
    if result.call_id is None:
        named = (call for call, name in unanswered.items() if result.name in (None, name))
        return next(named, None)
    calls = with_id[result.call_id]
    while calls and calls[0] not in unanswered:
        calls.popleft()
    return calls[0] if calls else None
