"""Versions of answers, and the branches that follow them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import pytest
from selenium.webdriver import Keys

from server.core.errors import InvalidRequest
from server.core.events import Event
from server.core.request import ChatPrompt, GenerationRequest
from tests.api.fakes import FakePool, answer
from tests.browser.conftest import OpenPage, StandIn
from tests.browser.talking import answered, ask, asked, counting, kept, opened

pytestmark = pytest.mark.process


def test_versions_of_answers_and_branches_can_be_gone_through(
    open_page: OpenPage, stand_in: StandIn
) -> None:
    pool = counting()
    with stand_in(pool) as url:
        page = opened(open_page, url)
        page.set(temperature="0.5")
        ask(page, "One")
        page.set(temperature="0.75")
        page.act("Regenerate", page.find(".answer"))
        page.finished()
        assert page.find(".answer .versions").text.split() == ["‹", "2/2", "›"]
        assert "test" in page.find(".answer-source").text
        assert "temperature 0.75" in page.find(".answer-source").text
        page.act("‹", page.find(".answer"))
        assert answered(page) == ["Answer 1."]
        assert "temperature 0.5" in page.find(".answer-source").text
        ask(page, "Two")
        # The model reads what is shown.
        assert said_to(pool) == ["One", "Answer 1.", "Two"]

        page.act("Edit", page.find(".asked"))
        field = page.find(".asked textarea")
        field.clear()
        field.send_keys("Other", Keys.CONTROL, Keys.ENTER)
        page.finished()
        assert asked(page) == ["Other"]
        assert answered(page) == ["Answer 4."]
        assert said_to(pool) == ["Other"]
        page.act("‹", page.find(".asked"))
        assert asked(page) == ["One", "Two"]
        assert answered(page) == ["Answer 1.", "Answer 3."]
        page.wait(
            lambda: kept(page)["chosen"][0][""] == kept(page)["turns"][0]["id"], "that it is saved"
        )
        page.browser.refresh()
        page.wait(lambda: answered(page) == ["Answer 1.", "Answer 3."], "the chosen branch")
        page.act("›", page.find(".asked"))
        assert answered(page) == ["Answer 4."]


def test_each_pane_shows_what_follows_its_own_version(
    open_page: OpenPage, stand_in: StandIn
) -> None:
    pool = counting()
    with stand_in(pool) as url:
        page = open_page(url)
        page.open()
        page.ready(models=1)
        ask(page, "One")
        ask(page, "Two")
        page.act("Regenerate", page.find(".answer", page.panes[0]))
        page.finished()
        assert [asked(page, pane) for pane in (0, 1)] == [["One"], ["One", "Two"]]

        ask(page, "Three")
        assert [asked(page, pane) for pane in (0, 1)] == [["One", "Three"], ["One", "Two", "Three"]]
        assert sorted(map(len, messages_to(pool, 2))) == [3, 5]
        page.act("Edit", page.find_all(".asked", page.panes[1])[1])
        page.find(".asked textarea").send_keys("!", Keys.CONTROL, Keys.ENTER)
        page.finished()
        # The left pane does not show what was edited.
        assert [asked(page, pane) for pane in (0, 1)] == [["One", "Three"], ["One", "Two!"]]
        page.act("Delete", page.find_all(".asked", page.panes[0])[1])
        assert [asked(page, pane) for pane in (0, 1)] == [["One"], ["One", "Two!"]]
        page.act("‹", page.find_all(".asked", page.panes[1])[1])
        assert asked(page, 1) == ["One", "Two", "Three"]
        page.wait(lambda: kept(page)["turns"][2]["places"][0] is None, "that it is saved")
        page.find("#undo").click()
        assert [asked(page, pane) for pane in (0, 1)] == [["One", "Three"], ["One", "Two!"]]
        page.wait(lambda: kept(page)["turns"][2]["places"][0] is not None, "that it is saved")
        page.browser.refresh()
        page.wait(lambda: asked(page, 1) == ["One", "Two!"], "the right pane")
        page.act("‹", page.find(".answer", page.panes[0]))
        assert [asked(page, pane) for pane in (0, 1)] == [["One", "Two"], ["One", "Two!"]]


def test_each_version_of_an_answer_has_a_continuation_of_its_own(
    open_page: OpenPage, stand_in: StandIn
) -> None:
    with stand_in(counting()) as url:
        page = opened(open_page, url)
        ask(page, "One")
        ask(page, "Two")
        page.act("Regenerate", page.find(".answer"))
        page.finished()
        assert (asked(page), answered(page)) == (["One"], ["Answer 3."])
        ask(page, "Other")
        page.act("‹", page.find(".answer"))
        assert (asked(page), answered(page)) == (["One", "Two"], ["Answer 1.", "Answer 2."])
        page.act("›", page.find(".answer"))
        assert (asked(page), answered(page)) == (["One", "Other"], ["Answer 3.", "Answer 4."])
        # Messages at one place are branches only where they follow the same version.
        assert len(page.find_all(".versions")) == 1
        page.wait(lambda: len(kept(page)["turns"]) == 3, "that it is saved")
        page.browser.refresh()
        page.wait(lambda: answered(page) == ["Answer 3.", "Answer 4."], "the continuation")
        page.act("Delete", page.find(".answer"))
        assert asked(page) == ["One", "Two"]
        page.find("#undo").click()
        assert asked(page) == ["One", "Other"]


def test_a_failed_answer_that_is_tried_again_keeps_what_follows(
    open_page: OpenPage, stand_in: StandIn
) -> None:
    outcomes = iter([InvalidRequest("That cannot be.")])

    def script(request: GenerationRequest) -> Iterable[Event | Exception]:
        yield from outcomes
        yield from answer(request, "Fine.")

    with stand_in(FakePool(script)) as url:
        page = opened(open_page, url)
        page.expected_complaints += ["status of 400"]
        page.send("One")
        page.finished(failing=True)
        page.send("Two")
        page.finished(failing=True)
        page.act("Retry", page.find(".answer"))
        page.finished()
        assert asked(page) == ["One", "Two"]
        assert page.find_all(".versions") == []


def test_a_conversation_that_an_earlier_page_kept_shows_all_its_turns(
    open_page: OpenPage, stand_in: StandIn, tmp_path: Path
) -> None:
    with stand_in(counting()) as url:
        page = opened(open_page, url)
        file = tmp_path / "session.json"
        # It did not say after which version of an answer a turn comes.
        answers = [{"content": "a"}, {"content": "b"}]
        turns = [
            {"id": "1", "parent": None, "prompt": "One", "answers": [answers, []], "shown": [0, 0]},
            {"id": "2", "parent": "1", "prompt": "Two", "answers": [[], []]},
        ]
        session = {"format": "dragoman-session", "version": 2, "turns": turns}
        file.write_text(json.dumps(session))
        page.find("#session-file").send_keys(str(file))
        page.wait(lambda: asked(page) == ["One", "Two"], "its turns")
        page.act("›", page.find(".answer"))
        assert asked(page) == ["One", "Two"]


def test_continuations_of_versions_are_in_files(
    open_page: OpenPage, stand_in: StandIn, downloads: Path
) -> None:
    with stand_in(counting()) as url:
        page = opened(open_page, url)
        ask(page, "One")
        page.act("Regenerate", page.find(".answer"))
        page.finished()
        ask(page, "After the second")
        page.act("‹", page.find(".answer"))
        assert asked(page) == ["One"]
        before = set(downloads.iterdir())
        page.menu("#export-session")
        (file,) = page.wait(
            lambda: {each for each in downloads.iterdir() if each.suffix == ".json"} - before,
            "the file",
        )
        page.new_conversation()
        page.find("#session-file").send_keys(str(file))
        page.wait(lambda: asked(page) == ["One"], "the conversation")
        page.act("›", page.find(".answer"))
        assert asked(page) == ["One", "After the second"]


def said_to(pool: FakePool) -> list[object]:
    """The messages of the last request."""
    return messages_to(pool, 1)[0]


def messages_to(pool: FakePool, requests: int) -> list[list[object]]:
    """The messages of each of the last requests."""
    prompts = [request.prompt for request in pool.client.requests[-requests:]]
    return [
        [message.content for message in prompt.messages]
        for prompt in prompts
        if isinstance(prompt, ChatPrompt)
    ]
