"""What is stored is found again, in order, by its owner alone, and goes when it should."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
import pytest
from sqlalchemy import update

from server.store.database import Database
from server.store.kinds import (
    Conversation,
    Item,
    Limits,
    PageRequest,
    Response,
    Status,
    StoredEvent,
    Swept,
    UnknownCursor,
)
from server.store.records import Records
from server.store.schema import responses, runners

DAY = 86_400
WIDE = Limits(bytes=1 << 40, seconds=DAY)


def item(name: str, text: str = "") -> Item:
    body = msgspec.json.encode({"id": name, "type": "message", "text": text})
    return Item(id=name, body=body)


def response(
    name: str,
    *,
    previous: str | None = None,
    conversation: str | None = None,
    status: Status = "completed",
    owner: str = "me",
    runner: str | None = None,
) -> Response:
    return Response(
        id=name,
        owner=owner,
        created_at=int(time.time()),
        status=status,
        body=msgspec.json.encode({"id": name, "status": status}),
        previous_id=previous,
        conversation_id=conversation,
        runner=runner,
    )


def conversation(name: str = "conv_1", owner: str = "me") -> Conversation:
    return Conversation(id=name, owner=owner, created_at=int(time.time()), metadata=b"{}")


@pytest.fixture
def records(database: Database) -> Iterator[Records]:
    with database.writing() as connection:
        yield Records(connection)


@contextmanager
def used(database: Database, response_id: str, seconds_ago: float) -> Iterator[None]:
    """Makes a response look as if it was last used some time ago."""
    with database.writing() as connection:
        at = int(time.time() - seconds_ago)
        connection.execute(
            update(responses).where(responses.c.id == response_id).values(used_at=at)
        )
    yield


def names(found: list[Item]) -> list[str]:
    return [each.id for each in found]


def chain(records: Records, length: int = 3) -> None:
    """Responses r0, r1, …, each going on from the one before, with items i0, o0, i1, …"""
    for index in range(length):
        previous = f"r{index - 1}" if index else None
        records.responses.save(
            response(f"r{index}", previous=previous), [item(f"i{index}")], [item(f"o{index}")]
        )


def test_a_response_is_found_again_with_its_items(records: Records) -> None:
    saved = response("r")
    output = item("o", "\0 \ud7ff é")
    records.responses.save(saved, [item("a"), item("b")], [output])
    assert records.responses.get("r", "me") == saved
    assert records.responses.outputs("r") == [output]
    assert names(records.responses.inputs("r")) == ["a", "b"]


def test_the_context_is_the_whole_chain_in_order(records: Records) -> None:
    chain(records)
    assert names(records.responses.context("r2")) == ["i0", "o0", "i1", "o1", "i2", "o2"]
    assert names(records.responses.context("r0")) == ["i0", "o0"]


def test_input_items_are_those_before_the_output(records: Records) -> None:
    chain(records)
    page = records.responses.input_page("r2", PageRequest(order="asc"))
    assert names(page.items) == ["i0", "o0", "i1", "o1", "i2"]
    assert not page.more


def test_pages_go_through_all_items_in_both_orders(records: Records) -> None:
    everything = [f"i{index}" for index in range(7)]
    records.responses.save(response("r"), map(item, everything), [])
    for order, expected in (("asc", everything), ("desc", everything[::-1])):
        seen: list[str] = []
        more = True
        while more:
            asked = PageRequest(after=seen[-1] if seen else None, limit=3, order=order)  # type: ignore[arg-type]
            page = records.responses.input_page("r", asked)
            seen += names(page.items)
            more = page.more
        assert seen == expected


def test_a_page_after_an_unknown_item_is_refused(records: Records) -> None:
    chain(records)
    with pytest.raises(UnknownCursor):
        records.responses.input_page("r0", PageRequest(after="nothing"))


def test_another_owner_finds_nothing(records: Records) -> None:
    chain(records)
    records.conversations.create(conversation(), [item("c")])
    assert records.responses.get("r0", "you") is None
    assert not records.responses.delete("r0", "you")
    assert records.responses.find_items(["i0"], "you") == {}
    assert records.conversations.get("conv_1", "you") is None
    assert records.responses.get("r0", "me") is not None


def test_an_item_is_found_by_its_id_in_its_newest_form(records: Records) -> None:
    records.responses.save(response("r"), [item("a", "old")], [])
    records.responses.save(response("s"), [item("a", "new")], [])
    assert records.responses.find_items(["a", "b"], "me") == {"a": item("a", "new")}


def test_a_deleted_response_is_gone_but_those_that_go_on_from_it_keep_their_context(
    records: Records,
) -> None:
    chain(records)
    assert records.responses.delete("r1", "me")
    assert records.responses.get("r1", "me") is None
    assert not records.responses.delete("r1", "me")
    assert names(records.responses.context("r2")) == ["i0", "o0", "i1", "o1", "i2", "o2"]


def test_nothing_of_a_deleted_response_stays_when_the_last_that_needs_it_goes(
    records: Records,
) -> None:
    chain(records)
    for name in ("r0", "r1", "r2"):
        assert records.responses.delete(name, "me")
    info = records.upkeep.info()
    assert (info.responses, info.items, info.bytes) == (0, 0, 0)


def test_the_items_of_a_response_join_its_conversation_when_it_is_over(records: Records) -> None:
    records.conversations.create(conversation(), [item("first")])
    running = response("r", conversation="conv_1", status="in_progress", runner="x")
    records.responses.save(running, [item("i")], [])
    assert names(records.conversations.context(conversation())) == ["first"]
    over = response("r", conversation="conv_1")
    assert records.responses.finish(over, [item("i")], [item("o")])
    assert names(records.conversations.context(conversation())) == ["first", "i", "o"]
    # What goes on from it begins with what it began with.
    assert names(records.responses.context("r")) == ["first", "i", "o"]
    assert names(records.responses.input_page("r", PageRequest(order="asc")).items) == [
        "first",
        "i",
    ]


def test_a_response_can_end_after_its_conversation_was_deleted(records: Records) -> None:
    records.conversations.create(conversation(), [])
    records.conversations.delete(conversation())
    records.responses.save(response("r", conversation="conv_1"), [item("i")], [item("o")])
    assert names(records.responses.context("r")) == ["i", "o"]


def test_conversation_and_response_lose_an_item_each_on_its_own(records: Records) -> None:
    records.conversations.create(conversation(), [item("first")])
    records.responses.save(response("r", conversation="conv_1"), [item("i")], [item("o")])
    records.conversations.delete_item(conversation(), "o")
    assert names(records.conversations.context(conversation())) == ["first", "i"]
    assert names(records.responses.outputs("r")) == ["o"]
    records.responses.delete("r", "me")
    assert names(records.conversations.context(conversation())) == ["first", "i"]
    records.conversations.delete(conversation())
    assert records.upkeep.info().items == 0


def test_a_response_that_was_cancelled_stays_so(records: Records) -> None:
    records.responses.save(response("r", status="cancelled"), [], [])
    assert not records.responses.finish(response("r"), [], [item("o")])
    found = records.responses.get("r", "me")
    assert found is not None
    assert found.status == "cancelled"


def test_events_are_found_after_a_number(records: Records) -> None:
    records.responses.save(response("r"), [], [])
    given = [StoredEvent(number, "response.created", b"{}") for number in range(5)]
    records.events.add("r", given[:3])
    records.events.add("r", given[3:])
    assert records.events.after("r", 2) == given[3:]
    records.responses.delete("r", "me")
    assert records.upkeep.info().events == 0


def test_a_server_that_was_not_seen_is_gone(records: Records) -> None:
    assert records.runners.is_gone("x")
    records.runners.see("x")
    records.runners.see("x")
    assert not records.runners.is_gone("x")


def test_a_sweep_removes_what_was_not_used_for_too_long_as_whole_chains(
    database: Database,
) -> None:
    with database.writing() as connection:
        records = Records(connection)
        chain(records)
        records.responses.save(response("alone"), [item("i")], [])
    with used(database, "r0", 2 * DAY), used(database, "alone", 2 * DAY):
        pass
    with database.writing() as connection:
        records = Records(connection)
        swept = records.upkeep.sweep(WIDE)
        assert swept.chains == 1  # r2 was used lately, and r0 is part of its chain
        assert swept.bytes > 0
        assert records.responses.get("alone", "me") is None
        assert len(records.responses.context("r2")) == 6


def test_a_sweep_makes_room_by_removing_what_was_not_used_for_longest(
    database: Database,
) -> None:
    with database.writing() as connection:
        records = Records(connection)
        for index in range(10):
            records.responses.save(response(f"r{index}"), [item("i", "x" * 1000)], [])
    for index in range(10):
        with used(database, f"r{index}", 100 - index):
            pass
    with database.writing() as connection:
        records = Records(connection)
        before = records.upkeep.bytes()
        swept = records.upkeep.sweep(Limits(bytes=before // 2, seconds=DAY))
        assert records.upkeep.bytes() == before - swept.bytes
        assert records.upkeep.bytes() <= before // 2
        left = [index for index in range(10) if records.responses.get(f"r{index}", "me")]
        assert left
        assert left == list(range(10 - len(left), 10))


def test_a_sweep_removes_conversations_but_not_what_responses_have_of_them(
    records: Records,
) -> None:
    records.conversations.create(conversation(), [item("c", "x" * 500)])
    records.responses.save(response("r", conversation="conv_1"), [item("i")], [item("o")])
    swept = records.upkeep.sweep(Limits(bytes=1 << 40, seconds=-5))
    assert (swept.chains, swept.conversations) == (1, 1)
    info = records.upkeep.info()
    assert (info.items, info.bytes) == (0, 0)


def test_a_running_response_is_not_swept_unless_its_server_is_gone(database: Database) -> None:
    with database.writing() as connection:
        records = Records(connection)
        records.runners.see("x")
        records.conversations.create(conversation(), [])
        running = response("r", status="in_progress", runner="x", conversation="conv_1")
        records.responses.save(running, [item("i")], [])
        none = Limits(bytes=1, seconds=-5)
        assert records.upkeep.sweep(none) == Swept()
        connection.execute(update(runners).values(seen_at=0))
        swept = records.upkeep.sweep(none)
        assert (swept.chains, swept.conversations) == (1, 1)


def test_an_export_has_everything(records: Records) -> None:
    records.conversations.create(conversation(), [item("c")])
    chain(records, 2)
    lines = [msgspec.json.decode(msgspec.json.encode(each)) for each in records.upkeep.export()]
    assert [line["id"] for line in lines] == ["conv_1", "r0", "r1"]
    assert lines[0]["items"][0]["id"] == "c"
    assert [line["id"] for line in lines[2]["output"]] == ["o1"]
    assert [line["id"] for line in lines[2]["input"]] == ["i1"]


def test_nothing_is_kept_of_a_response_that_was_given_up(records: Records) -> None:
    records.conversations.create(conversation(), [])
    records.responses.save(response("r0", conversation="conv_1"), [item("i0")], [item("o0")])
    records.responses.save(response("r1", conversation="conv_1"), [item("i1")], [item("o1")])
    records.responses.give_up("r1", "me")
    found = records.conversations.get("conv_1", "me")
    assert found is not None
    assert names(records.conversations.context(found)) == ["i0", "o0"]
    assert records.responses.get("r1", "me") is None
    assert list(records.responses.find_items(["i1", "o1"], "me")) == []
    _, kept = records.upkeep.export()
    assert msgspec.json.decode(kept["id"]) == "r0"


def test_a_response_that_was_given_up_is_not_stored_later(records: Records) -> None:
    records.conversations.create(conversation(), [])
    records.responses.give_up("r1", "me")
    records.responses.save(response("r1", conversation="conv_1"), [item("i1")], [item("o1")])
    found = records.conversations.get("conv_1", "me")
    assert found is not None
    assert records.conversations.context(found) == []
    assert records.responses.get("r1", "me") is None


def test_giving_up_leaves_what_is_anothers(records: Records) -> None:
    records.responses.save(response("r0", owner="you"), [item("i0")], [])
    records.responses.give_up("r0", "me")
    assert records.responses.get("r0", "you") is not None
    assert names(records.responses.inputs("r0")) == ["i0"]
