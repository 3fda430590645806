"""Panes: their settings, the APIs they speak, reasoning and tool calls, errors, and keys."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from threading import Event
from typing import Literal

import msgspec
import pytest
from selenium.webdriver import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.select import Select

from server.core import events
from server.core.errors import InvalidRequest
from server.core.model_info import AdapterFile
from server.core.request import ChatPrompt, GenerationRequest
from server.reply.builtin_formats import builtin_format
from tests.api.fakes import FakePool, answer
from tests.browser.conftest import OpenPage
from tests.browser.page import Page

pytestmark = pytest.mark.process

StandIn = Callable[[FakePool], AbstractContextManager[str]]

CALLS = [
    {"name": "weather", "arguments": {"city": "Paris"}},
    {"name": "weather", "arguments": {"city": "Rome"}},
]
TOOLS = {
    "chat": {"type": "function", "function": {"name": "weather", "parameters": {}}},
    "responses": {"type": "function", "name": "weather", "parameters": {}},
    "messages": {"name": "weather", "input_schema": {"type": "object"}},
}
PATHS = {
    "chat": "/v1/chat/completions",
    "responses": "/v1/responses",
    "messages": "/v1/messages",
}


def agent() -> FakePool:
    """A model that thinks, says something and calls a tool twice; with results, it answers."""

    def script(request: GenerationRequest) -> Iterable[events.Event]:
        assert isinstance(request.prompt, ChatPrompt)
        if request.prompt.messages[-1].role == "tool":
            return answer(request, "Wear", " a hat.", tools_active=True)
        calls = [f"<tool_call>\n{json.dumps(call)}\n</tool_call>" for call in CALLS]
        texts = ("<think>", "Which", " city?", "</think>", "I look", " it up.", *calls)
        return answer(request, *texts, tools_active=True)

    return FakePool(script, builtin_format("hermes"))


def opened(open_page: OpenPage, url: str, *, panes: int = 1) -> Page:
    page = open_page(url)
    page.open()
    page.ready(models=1)
    if panes == 1:
        page.menu("#toggle-second")
    return page


def choose(page: Page, field: str, value: str) -> None:
    page.set()
    Select(page.find(f"#settings [name={field}]")).select_by_value(value)


def arrows(page: Page) -> list[str]:
    """What stands before "Reasoning" on a phone, closed and opened."""
    page.resize(390, 844)
    signs: list[str] = page.browser.execute_script("""
        const summary = document.querySelector(".reasoning > summary");
        const signs = [0, 1].map(() => {
          const sign = getComputedStyle(summary, "::before").content;
          summary.click();
          return JSON.parse(sign);
        });
        return signs;
    """)
    page.resize(1360, 860)
    return signs


def last_prompt(pool: FakePool) -> ChatPrompt:
    prompt = pool.client.requests[-1].prompt
    assert isinstance(prompt, ChatPrompt)
    return prompt


@pytest.mark.parametrize("api", PATHS)
def test_reasoning_and_tool_calls_stream_and_results_go_back_over_every_api(
    open_page: OpenPage, stand_in: StandIn, api: str
) -> None:
    pool = agent()
    with stand_in(pool) as url:
        page = opened(open_page, url)
        choose(page, "api", "" if api == "chat" else api)
        choose(page, "thinking", "on")
        page.set(system="Be brief.", tools=json.dumps([TOOLS[api]]), top_k="5", stop="END")
        page.send("How is the weather?")
        page.finished()
        shown = page.find(".answer")
        assert page.find(".reasoning-text", shown).get_property("textContent") == "Which city?"
        assert page.find(".token-text", shown).text.strip() == "I look it up."
        assert arrows(page) == ["▸", "▾"]
        called = [json.loads(each.text) for each in page.find_all(".arguments", shown)]
        assert called == [call["arguments"] for call in CALLS]
        asked = pool.client.requests[-1]
        assert asked.sampling.top_k == 5
        assert asked.stop == ["END"]
        assert last_prompt(pool).template_kwargs["enable_thinking"] is True

        for field, text in zip(page.find_all(".call textarea"), ("rain", "sun"), strict=True):
            field.send_keys(text)
        page.act("Send results", shown)
        page.wait(lambda: len(page.find_all(".answer")) == 2, "the second answer")
        page.finished()
        assert page.find_all(".token-text")[-1].text == "Wear a hat."
        system, user, said, *results = last_prompt(pool).messages
        assert (system.content, user.content) == ("Be brief.", "How is the weather?")
        assert said.reasoning_content == "Which city?"
        assert str(said.content).strip() == "I look it up."
        assert [call.name for call in said.tool_calls] == ["weather", "weather"]
        assert [message.content for message in results] == ["rain", "sun"]
        ids = [call.id for call in said.tool_calls]
        assert [message.tool_call_id for message in results] == ids

        page.find(".copy-code").click()
        assert PATHS[api] in page.find("#code").text
        page.browser.switch_to.active_element.send_keys(Keys.ESCAPE)


def test_results_are_sent_for_the_pane_whose_results_were_typed(
    open_page: OpenPage, stand_in: StandIn
) -> None:
    pool = agent()
    with stand_in(pool) as url:
        page = opened(open_page, url, panes=2)
        page.set(tools=json.dumps([TOOLS["chat"]]))
        page.send("How is the weather?")
        page.finished()
        for asked, (pane, result) in enumerate(zip(page.panes, ("rain", "sun"), strict=True), 3):
            for field in page.find_all(".call textarea", pane):
                field.send_keys(result)
            page.act("Send results", pane)
            answered(page, pool, asked)
            results = [each.content for each in last_prompt(pool).messages if each.role == "tool"]
            assert results == [result, result]
        assert [len(page.find_all(".answer", pane)) for pane in page.panes] == [2, 2]
        assert "Send results" not in [each.text for each in page.find_all(".answer button")]

        page.find("#undo").click()
        page.find("#undo").click()
        page.act("Send results", page.panes[0])  # both have been typed
        answered(page, pool, 6)


def answered(page: Page, pool: FakePool, times: int) -> None:
    """Wait until the model was asked so many times, and has answered."""
    page.wait(lambda: len(pool.client.requests) == times, f"{times} requests")
    page.finished()


def test_thoughts_are_open_until_the_answer_begins(open_page: OpenPage, stand_in: StandIn) -> None:
    goes_on = Event()

    def script(request: GenerationRequest) -> Iterable[events.Event | float]:
        *thoughts, begin, rest, finished = answer(request, "<think>", "Hm.", "</think>", "So.")
        yield from thoughts
        while not goes_on.is_set():
            yield 0.01
        yield from (begin, rest, finished)

    with stand_in(FakePool(script, builtin_format("hermes"))) as url:
        page = opened(open_page, url)
        page.send("Hello")
        page.wait(lambda: page.find_all(".growing .reasoning[open]"), "thoughts")
        page.wait(lambda: page.find(".reasoning-text").text == "Hm.", "what they say")
        goes_on.set()
        page.finished()
        assert not page.find(".reasoning-text").is_displayed()


@pytest.mark.parametrize(("kind", "view"), [("instruct", "Formatted"), ("base", "Tokens")])
def test_probabilities_are_shown_first_for_base_models_only(
    open_page: OpenPage, stand_in: StandIn, kind: Literal["instruct", "base"], view: str
) -> None:
    pool = FakePool()
    pool.client.info = msgspec.structs.replace(pool.client.info, kind=kind)
    with stand_in(pool) as url:
        page = open_page(url)
        page.open(view=None)
        page.ready(models=1)
        page.send("Hello")
        page.finished()
        for pane in page.panes:
            assert page.find(".views [aria-pressed=true]", pane).text == view
            assert bool(page.find_all(".token", pane)) == (kind == "base")


def test_each_pane_has_settings_of_its_own_once_they_are_parted(
    open_page: OpenPage, stand_in: StandIn
) -> None:
    pool = FakePool()
    with stand_in(pool) as url:
        page = opened(open_page, url, panes=2)
        page.set(temperature="0.5", system="Both")
        page.find("#settings-linked").click()
        page.find("input[name=settings-of][value='1'] + span").click()
        page.set(temperature="0.75", system="Right")
        choose(page, "api", "messages")
        page.send("Hello")
        page.finished()

        requests = {
            prompt.messages[0].content: request.sampling.temperature
            for request in pool.client.requests
            if isinstance(prompt := request.prompt, ChatPrompt)
        }
        assert requests == {"Both": 0.5, "Right": 0.75}
        sources = [each.text for each in page.find_all(".answer-source")]
        assert [("temperature 0.5" in source, "Messages" in source) for source in sources] == [
            (True, False),
            (False, True),
        ]
        page.wait(lambda: page.titles() == ["Hello"], "the conversation")
        page.browser.refresh()
        page.wait(lambda: page.find_all(".answer"), "the answers")
        page.set()
        assert page.find("[name=system]").get_property("value") == "Both"
        page.find("input[name=settings-of][value='1'] + span").click()
        assert page.find("[name=system]").get_property("value") == "Right"


def test_panels_close_where_they_would_lie_over_the_panes(
    open_page: OpenPage, stand_in: StandIn
) -> None:
    with stand_in(FakePool()) as url:
        page = opened(open_page, url)
        page.set()
        panels = [page.find("#conversations"), page.find("#settings")]
        assert all(panel.is_displayed() for panel in panels)
        page.resize(390, 844)
        page.wait(lambda: not any(panel.is_displayed() for panel in panels), "closed panels")
        page.find("#toggle-conversations").click()
        assert page.find("#conversations").is_displayed()
        page.resize(1360, 860)
        page.wait(lambda: page.find("#conversations").is_displayed(), "the list")


def test_another_model_is_suggested_where_both_panes_have_the_same(
    open_page: OpenPage, stand_in: StandIn
) -> None:
    pool = FakePool()
    pool.adapters = [AdapterFile(name="poet", path="/models/poet.gguf")]
    with stand_in(pool) as url:
        page = opened(open_page, url, panes=2)
        left, right = (Select(page.find(".model", pane)) for pane in page.panes)
        right.select_by_value("test")
        suggestion = page.find(".suggestion", page.panes[1])
        assert suggestion.is_displayed()
        page.find("button", suggestion).click()
        assert left.first_selected_option.text != right.first_selected_option.text
        assert not suggestion.is_displayed()


def test_errors_stand_beside_what_caused_them_with_a_way_on(
    open_page: OpenPage, stand_in: StandIn
) -> None:
    outcomes = iter([InvalidRequest("That cannot be.", at=("messages", 0))])

    def script(request: GenerationRequest) -> Iterable[events.Event | Exception]:
        yield from outcomes
        yield from answer(request, "Fine.")

    with stand_in(FakePool(script)) as url:
        page = opened(open_page, url)
        page.expected_complaints += ["status of 400"]
        page.send("Hello")
        page.finished(failing=True)
        shown = page.find(".answer")
        assert "That cannot be." in page.find(".problem", shown).text
        page.act("Retry", shown)
        page.finished()
        assert [each.text for each in page.find_all(".token-text")] == ["Fine."]
        assert page.find_all(".versions") == []  # what failed without a word is no version

        page.set(tools="{oops")
        page.send("And now?")
        problem = page.wait(lambda: page.find("#problem-tools"), "the problem")
        field = page.find("[name=tools]")
        assert field.get_attribute("aria-describedby") == problem.get_attribute("id")
        assert page.prompt.get_property("value") == "And now?"
        field.clear()
        field.send_keys("[]")
        assert page.find_all("#problem-tools") == []


# Ends streams before their end, as a proxy that gives up does, or as a server that dies.
CUT = """
const [dies] = arguments;
const real = window.fetch;
window.fetch = async (path, options) => {
  const response = await real(path, options);
  if (!response.headers.get("content-type").includes("event-stream")) return response;
  const text = await response.text();
  const begun = text.slice(0, text.indexOf("\\n\\n", text.indexOf("Half")) + 2);
  const bytes = new TextEncoder().encode(begun);
  const end = (stream) => {
    const shown = [...document.querySelectorAll(".answer")].at(-1).textContent;
    if (!shown.includes("Half")) setTimeout(end, 10, stream);
    else if (dies) stream.error(new TypeError("network error"));
    else stream.close();
  };
  const start = (stream) => {
    stream.enqueue(bytes);
    end(stream);
  };
  return new Response(new ReadableStream({ start }), { headers: response.headers });
};
"""


@pytest.mark.parametrize("dies", [True, False])
def test_an_answer_whose_stream_has_no_end_is_an_error_over_every_api(
    open_page: OpenPage, stand_in: StandIn, dies: bool
) -> None:
    with stand_in(FakePool(lambda request: answer(request, "Half", " an answer."))) as url:
        page = opened(open_page, url)
        page.browser.execute_script(CUT, dies)
        for api in ("", "responses", "messages"):
            choose(page, "api", api)
            page.send("Hello")
            page.finished(failing=True)
            shown = page.find_all(".answer")[-1]
            assert "The connection broke off." in page.find(".problem", shown).text
            assert page.find(".token-text", shown).text == "Half"


def test_what_the_server_did_not_follow_is_said(open_page: OpenPage, stand_in: StandIn) -> None:
    with stand_in(FakePool()) as url:
        page = opened(open_page, url)
        choose(page, "api", "messages")
        hosted = {"type": "web_search_20250305", "name": "web_search"}
        page.set(tools=json.dumps([hosted]), max_tokens="9999")
        page.send("Hello")
        page.finished()
        said = page.find(".ending").text
        assert "Without effect: tools.web_search_20250305." in said
        assert "Lowered to the limit: max_tokens=2048." in said


def test_enter_sends_but_not_with_shift_nor_in_a_composition(
    open_page: OpenPage, stand_in: StandIn
) -> None:
    pool = FakePool()
    with stand_in(pool) as url:
        page = opened(open_page, url)
        page.prompt.send_keys("One", Keys.SHIFT, Keys.ENTER, Keys.SHIFT, "two")
        assert page.prompt.get_property("value") == "One\ntwo"
        compose(page.prompt, page)
        assert pool.client.requests == []
        page.prompt.send_keys(Keys.ENTER)
        page.wait(lambda: page.find_all(".answer"), "the answer")
        page.finished()
        assert last_prompt(pool).messages[-1].content == "One\ntwo"

        page.set()
        page.find("#enter-sends").click()
        page.prompt.send_keys("Three", Keys.ENTER, "four")
        assert page.prompt.get_property("value") == "Three\nfour"
        page.wait(lambda: "four" in page.stored(), "the kept draft")
        page.browser.refresh()
        page.wait(lambda: page.prompt.get_property("value") == "Three\nfour", "the draft")
        page.prompt.send_keys(Keys.ENTER)  # the setting is kept
        assert page.find("#keys").text.startswith("Ctrl Enter sends")
        page.prompt.send_keys(Keys.CONTROL, Keys.ENTER)
        page.wait(lambda: len(page.find_all(".answer")) == 2, "the second answer")
        page.finished()


def compose(field: WebElement, page: Page) -> None:
    """Press Enter as input methods do while one composes a word."""
    page.browser.execute_script(
        "arguments[0].dispatchEvent(new KeyboardEvent('keydown', {key: 'Enter', keyCode: 229,"
        " isComposing: true, bubbles: true, cancelable: true}))",
        field,
    )
