"""Which result of a conversation answers which of its calls."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from server.api.open_calls import OpenCalls
from server.api.openai.responses.origin import Placed
from server.api.openai.responses.schemas import items as wire
from server.core.errors import InvalidRequest, Locator
from server.core.ids import random_id

CALLS = (wire.FunctionCallItem, wire.CustomToolCallItem, wire.ClientCallItem)
RESULTS = (wire.CallOutputItem, wire.ClientCallOutputItem)
_Result = wire.CallOutputItem | wire.ClientCallOutputItem


def results_by_call(placed: Sequence[Placed], stored: Locator) -> tuple[dict[int, int], list[int]]:
    """The index of the result of the call at each index, and those of results without a call.

    A call may have no result. Ids may repeat: a result answers the first call before it that has
    its id and no result yet. One without an id answers the first call of its name, or, if it has no
    name either, of any. Only items at ``stored`` may be results without a call: theirs was deleted.

    Raises InvalidRequest for another result that answers no call.
    """
    results: dict[int, int] = {}
    alone: list[int] = []
    for index, result, call in _answers([item for item, _ in placed]):
        at = placed[index][1]
        if call is not None:
            results[call] = index
        elif at == stored:
            alone.append(index)
        else:
            id_ = str(result.call_id)[:100]
            raise InvalidRequest(
                f"No tool call found for function call output with call_id {id_}.",
                at=(*at, "call_id"),
            )
    return results, alone


def with_call_ids(
    given: Sequence[wire.InputItem], before: Callable[[], Sequence[wire.InputItem]]
) -> list[wire.InputItem]:
    """``given`` as items to store: each result has the id of the call that it answers.

    Where an earlier call has that id as well, the call and its result get one of their own.
    Otherwise a result would answer another call once an item between them is deleted. ``before``
    gives the items in front of ``given``, and is asked only where there is something to find out.
    """
    results = [item for item in given if isinstance(item, RESULTS)]
    named = all(item.call_id is not None for item in results)
    if not results or (named and not any(isinstance(item, CALLS) for item in given)):
        return list(given)
    items = [*before(), *given]
    first = len(items) - len(given)
    owners: dict[str, int] = {}
    for index, item in enumerate(items):
        if isinstance(item, CALLS):
            owners.setdefault(item.call_id, index)
    for index, result, call in list(_answers(items)):
        if index < first or call is None:
            continue
        answered = items[call]
        assert isinstance(answered, CALLS)
        id_ = answered.call_id
        if call >= first and owners[id_] < call:
            id_ = new_call_id()
            items[call] = answered.model_copy(update={"call_id": id_})
        if result.call_id != id_:
            items[index] = result.model_copy(update={"call_id": id_})
    return items[first:]


def new_call_id() -> str:
    """The id of a call whose own another call has."""
    return f"call_{random_id(24)}"


def _answers(items: Sequence[wire.InputItem]) -> Iterator[tuple[int, _Result, int | None]]:
    """Each result with its index, and the index of the call that it answers, if there is one."""
    calls: OpenCalls[int] = OpenCalls()
    for index, item in enumerate(items):
        if isinstance(item, CALLS):
            calls.made(index, id_=item.call_id, name=item.name)
        elif isinstance(item, RESULTS):
            id_ = item.call_id
            yield index, item, calls.next(item.name) if id_ is None else calls.with_id(id_)
