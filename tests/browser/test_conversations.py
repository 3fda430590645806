"""Conversations that are kept: saved, found again, undone, shared between tabs."""

from __future__ import annotations

from pathlib import Path

import pytest
from selenium.webdriver import Keys

from tests.browser.conftest import OpenPage, StandIn
from tests.browser.talking import answered, ask, asked, counting, endless, kept, listed, opened

pytestmark = pytest.mark.process


def test_conversations_keep_themselves_and_are_found_by_what_they_say(
    open_page: OpenPage, stand_in: StandIn
) -> None:
    with stand_in(counting()) as url:
        page = opened(open_page, url)
        page.prompt.send_keys("How far is")
        listed(page, "How far is")  # what is typed is kept before it is sent
        page.prompt.send_keys(" the moon?", Keys.ENTER)
        page.finished()
        listed(page, "How far is the moon?")
        page.new_conversation()
        ask(page, "Wie weit ist die Sonne, Frau MÜLLER?")
        listed(page, "Wie weit ist die Sonne, Frau MÜLLER?", "How far is the moon?")

        search = page.find("#search")
        for words, found in {
            "müller sonne": ["Wie weit ist die Sonne, Frau MÜLLER?"],
            "answer 1": ["How far is the moon?"],
            "pluto": [],
        }.items():
            search.clear()
            search.send_keys(words)
            listed(page, *found)
        assert page.find("#no-conversations").text == "No conversation says that."
        search.clear()
        search.send_keys("moon")
        listed(page, "How far is the moon?")
        assert "moon" in page.find(".excerpt").text
        page.click(".conversation")
        page.wait(lambda: asked(page) == ["How far is the moon?"], "the conversation")
        assert answered(page) == ["Answer 1."]

        page.click("#conversation-list [title=Rename]")
        page.find("#conversation-list input").send_keys("The moon", Keys.ENTER)
        listed(page, "The moon")
        page.browser.refresh()
        page.wait(lambda: answered(page) == ["Answer 1."], "the conversation of this tab")
        listed(page, "The moon", "Wie weit ist die Sonne, Frau MÜLLER?")


def test_images_are_kept_with_their_conversation(
    open_page: OpenPage, stand_in: StandIn, tmp_path: Path
) -> None:
    pool = counting()
    pool.see()
    (tmp_path / "a.gif").write_bytes(b"GIF89a")
    with stand_in(pool) as url:
        page = opened(open_page, url)
        page.expected_complaints += ["status of 400"]
        page.find("#image-files").send_keys(str(tmp_path / "a.gif"))
        page.wait(lambda: "data:image/gif" in page.stored("images"), "the image")
        page.browser.refresh()
        page.wait(lambda: page.find_all("#attached img"), "the image again")


def test_a_reload_in_mid_stream_keeps_what_had_arrived(
    open_page: OpenPage, stand_in: StandIn
) -> None:
    with stand_in(endless("Once ", "upon ", "a time")) as url:
        page = opened(open_page, url)
        page.send("Tell me a story")
        page.wait(lambda: "Once upon a time" in page.stored("answers"), "the saved beginning")
        page.browser.refresh()
        page.wait(lambda: answered(page) == ["Once upon a time"], "the beginning")
        assert page.find(".ending").text.startswith("Cut off")
        assert page.find("#send").is_displayed()


def test_a_new_conversation_has_the_settings_of_the_one_before_until_they_are_reset(
    open_page: OpenPage, stand_in: StandIn
) -> None:
    pool = counting()
    with stand_in(pool) as url:
        page = open_page(url)
        page.open()
        page.ready(models=1)
        page.set(system="Be brief.", temperature="0.5")
        page.find("#settings-linked").click()
        ask(page, "One")
        page.new_conversation()
        assert page.find("[name=system]").get_property("value") == "Be brief."
        assert not page.find("#settings-linked").is_selected()
        ask(page, "Two")
        assert {request.sampling.temperature for request in pool.client.requests} == {0.5}
        page.find("#reset-settings").click()
        assert page.find("[name=system]").get_property("value") == ""
        page.click("#conversation-list li:last-child .conversation")
        page.wait(lambda: asked(page) == ["One"], "the first conversation")
        assert page.find("[name=system]").get_property("value") == "Be brief."


def test_a_message_being_edited_is_there_after_a_reload(
    open_page: OpenPage, stand_in: StandIn
) -> None:
    with stand_in(counting()) as url:
        page = opened(open_page, url)
        ask(page, "One")
        page.act("Edit", page.find(".asked"))
        page.find(".asked textarea").send_keys(" more")
        page.act("Edit", page.find(".answer"))
        page.find(".answer textarea").send_keys(" Yes")
        page.browser.refresh()
        page.wait(lambda: len(page.find_all(".editor textarea")) == 2, "both edits")
        typed = [field.get_property("value") for field in page.find_all(".editor textarea")]
        assert typed == ["One more", "Answer 1. Yes"]
        page.act("Cancel", page.find(".answer"))
        page.find(".asked textarea").send_keys(Keys.CONTROL, Keys.ENTER)
        page.finished()
        assert (asked(page), answered(page)) == (["One more"], ["Answer 2."])
        page.browser.refresh()
        page.wait(lambda: asked(page) == ["One more"], "the conversation")
        assert page.find_all(".editor") == []


def test_a_deleted_conversation_can_be_had_back(open_page: OpenPage, stand_in: StandIn) -> None:
    with stand_in(counting()) as url:
        page = opened(open_page, url)
        ask(page, "First")
        page.new_conversation()
        ask(page, "Second")
        listed(page, "Second", "First")
        page.click("#conversation-list [title=Delete]")  # the one that is shown
        listed(page, "First")
        page.wait(lambda: asked(page) == [], "an empty conversation")
        page.find("#deleted button").click()
        page.wait(lambda: asked(page) == ["Second"], "the conversation")
        listed(page, "Second", "First")


def test_steps_are_undone_and_done_again(open_page: OpenPage, stand_in: StandIn) -> None:
    with stand_in(counting()) as url:
        page = opened(open_page, url)
        undo, redo = page.find("#undo"), page.find("#redo")
        assert not undo.is_enabled()
        ask(page, "One")
        page.act("Regenerate", page.find(".answer"))
        page.finished()
        page.act("Edit", page.find(".answer"))
        page.find(".answer textarea").send_keys(" Yes", Keys.CONTROL, Keys.ENTER)
        assert answered(page) == ["Answer 2. Yes"]
        page.act("Delete", page.find(".asked"))
        assert asked(page) == []

        for label, shown in {
            "Delete": ["Answer 2. Yes"],
            "Edit": ["Answer 2."],
            "Regenerate": ["Answer 1."],
            "Send": [],
        }.items():
            assert undo.get_attribute("title") == f"Undo: {label}"
            undo.click()
            assert answered(page) == shown
        assert page.prompt.get_property("value") == "One"
        assert not undo.is_enabled()
        for shown in (["Answer 1."], ["Answer 2."], ["Answer 2. Yes"], []):
            redo.click()
            assert answered(page) == shown
        assert page.prompt.get_property("value") == ""
        page.find("body").send_keys(Keys.CONTROL, "z")
        assert answered(page) == ["Answer 2. Yes"]
        page.wait(lambda: kept(page)["turns"], "that it is saved")
        page.browser.refresh()
        page.wait(lambda: answered(page) == ["Answer 2. Yes"], "the conversation")


def test_what_is_being_edited_survives_what_else_happens(
    open_page: OpenPage, stand_in: StandIn
) -> None:
    with stand_in(counting()) as url:
        page = opened(open_page, url)
        ask(page, "One")
        page.act("Edit", page.find(".asked"))
        page.find(".asked textarea").send_keys(" more")
        ask(page, "Two")
        assert page.find(".asked textarea").get_property("value") == "One more"
        page.find(".asked textarea").send_keys(Keys.ESCAPE)
        assert asked(page) == ["One", "Two"]


# Both within one task of the page: nothing is saved between them.
_TYPE_AND_RELOAD = """
    const field = document.querySelector(arguments[0]);
    field.value += arguments[1];
    field.dispatchEvent(new Event("input", { bubbles: true }));
    location.reload();
"""


def test_what_is_typed_right_before_a_reload_is_kept(
    open_page: OpenPage, stand_in: StandIn
) -> None:
    with stand_in(counting()) as url:
        page = opened(open_page, url)
        page.browser.execute_script(_TYPE_AND_RELOAD, "#prompt", "New")
        page.wait(lambda: page.prompt.get_property("value") == "New", "a conversation not saved")
        page.wait(lambda: page.titles() == ["New"], "that it is saved now")
        ask(page, " one")
        page.set(system="Be")
        page.wait(lambda: "Be" in page.stored(), "that it is saved")
        page.browser.execute_script(_TYPE_AND_RELOAD, "[name=system]", " brief.")
        page.wait(lambda: answered(page) == ["Answer 1."], "the conversation")
        page.set()
        assert page.find("[name=system]").get_property("value") == "Be brief."
        page.wait(lambda: "Be brief." in page.stored(), "that it is saved now")


def test_two_tabs_see_each_others_changes_and_overwrite_none(
    open_page: OpenPage, stand_in: StandIn
) -> None:
    with stand_in(endless("Once")) as url:
        page = opened(open_page, url)
        first = page.browser.current_window_handle
        page.prompt.send_keys("Shared")
        listed(page, "Shared")
        page.browser.switch_to.new_window("tab")
        second = page.browser.current_window_handle
        try:
            page.resize(1360, 860)
            page.browser.get(url)
            listed(page, "Shared")
            page.click(".conversation")
            page.wait(lambda: page.prompt.get_property("value") == "Shared", "the conversation")

            page.browser.switch_to.window(first)
            page.prompt.send_keys(" by two", Keys.ENTER)
            page.wait(lambda: "Once" in page.stored("answers"), "an answer that does not end")
            page.browser.switch_to.window(second)
            page.wait(lambda: asked(page) == ["Shared by two"], "the other tab's message")
            page.wait(lambda: "Another tab" in page.find(".ending").text, "who receives it")
            page.prompt.send_keys("From the second")
            page.wait(lambda: "From the second" in page.stored(), "the draft")

            page.browser.switch_to.window(first)
            page.prompt.send_keys("From the first")
            page.wait(lambda: "From the first" in page.stored(), "a copy")
            listed(page, "Shared by two (copy)", "Shared by two")
            assert "goes on here as a copy" in page.find("#conversations-problem").text
            page.prompt.send_keys(Keys.ESCAPE)
            page.finished()
            page.click("li:nth-child(2) > .conversation")
            page.wait(
                lambda: page.prompt.get_property("value") == "From the second", "the original"
            )
            assert asked(page) == ["Shared by two"]
        finally:
            page.browser.switch_to.window(second)
            page.browser.close()
            page.browser.switch_to.window(first)


def test_what_is_said_before_the_storage_is_open_is_kept_too(
    open_page: OpenPage, stand_in: StandIn
) -> None:
    with stand_in(counting()) as url:
        page = open_page(url)
        hook = page.browser.execute_cdp_cmd(
            "Page.addScriptToEvaluateOnNewDocument", {"source": _SLOW_STORAGE}
        )
        try:
            page.open()
            page.ready(models=1)
            page.menu("#toggle-second")
            ask(page, "Early")
            assert page.titles() == []
            page.browser.execute_script("openStorage()")
            listed(page, "Early")
        finally:
            page.browser.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", hook)


# The page hears that its database is open when openStorage() is called.
_SLOW_STORAGE = """
const isOpened = new Promise((resolve) => { window.openStorage = resolve; });
const usualOpen = IDBFactory.prototype.open;
IDBFactory.prototype.open = function (...named) {
  const request = usualOpen.apply(this, named);
  const late = new EventTarget();
  for (const type of ["upgradeneeded", "success", "error"]) {
    request.addEventListener(type, async () => {
      Object.assign(late, { result: request.result });
      if (type === "success") await isOpened;
      late.dispatchEvent(new Event(type));
    });
  }
  return late;
};
"""


def test_a_full_storage_is_said_and_nothing_is_lost(open_page: OpenPage, stand_in: StandIn) -> None:
    with stand_in(counting()) as url:
        page = opened(open_page, url)
        ask(page, "Before")
        listed(page, "Before")
        page.browser.execute_script(_FILL_STORAGE)
        ask(page, "Too much")
        problem = page.find("#conversations-problem")
        page.wait(lambda: "storage is full" in problem.text, "the problem")
        page.find("#new-session").click()  # what is not saved does not go away
        assert asked(page) == ["Before", "Too much"]

        page.browser.execute_script("IDBObjectStore.prototype.put = window.usualPut")
        page.prompt.send_keys("More")
        page.wait(lambda: not problem.is_displayed(), "that all is saved")
        page.browser.refresh()
        page.wait(lambda: answered(page) == ["Answer 1.", "Answer 2."], "the answers")


# A real quota is reached with megabytes only, which a busy browser takes minutes to handle.
_FILL_STORAGE = """
window.usualPut = IDBObjectStore.prototype.put;
IDBObjectStore.prototype.put = function () {
  throw new DOMException("The storage is full.", "QuotaExceededError");
};
"""
