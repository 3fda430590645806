"""Which result of a request answers which of its calls."""

from __future__ import annotations

from collections.abc import Sequence

from server.api.open_calls import OpenCalls
from server.api.openai.responses.origin import Placed
from server.api.openai.responses.schemas import items as wire
from server.core.errors import InvalidRequest, Locator

CALLS = (wire.FunctionCallItem, wire.CustomToolCallItem, wire.ClientCallItem)
RESULTS = (wire.CallOutputItem, wire.ClientCallOutputItem)


def results_by_call(placed: Sequence[Placed], stored: Locator) -> tuple[dict[int, int], list[int]]:
    """The index of the result of the call at each index, and those of results without a call.

    A call may have no result. Ids may repeat: a result answers the first call before it that has
    its id and no result yet. One without an id answers the first call of its name, or, if it has no
    name either, of any. Only items at ``stored`` may be results without a call: theirs was deleted.

    Raises InvalidRequest for another result that answers no call.
    """
    calls: OpenCalls[int] = OpenCalls()
    results: dict[int, int] = {}
    alone: list[int] = []
    for index, (item, at) in enumerate(placed):
        if isinstance(item, CALLS):
            calls.made(index, id_=item.call_id, name=item.name)
        elif isinstance(item, RESULTS):
            id_ = item.call_id
            call = calls.next(item.name) if id_ is None else calls.with_id(id_)
            if call is not None:
                results[call] = index
            elif at == stored:
                alone.append(index)
            else:
                raise InvalidRequest(
                    f"No tool call found for function call output with call_id {str(id_)[:100]}.",
                    at=(*at, "call_id"),
                )
    return results, alone
