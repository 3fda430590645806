"""The page itself: API keys, hostile text, themes, phones, keyboards and screen readers."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from pathlib import Path

import pytest
from selenium.webdriver import Keys
from selenium.webdriver.support.select import Select

from server.core.events import Event
from server.core.request import ChatPrompt, GenerationRequest, ImagePart, TextPart
from server.reply.builtin_formats import builtin_format
from tests.api.fakes import FakePool, answer
from tests.browser.conftest import OpenPage, StandIn
from tests.browser.page import NETWORK_CHANGED, Page
from tests.e2e.server import running_server

HOSTILE = (
    '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>'
    '<a href="javascript:window.hacked=1">click</a></span></template>'
)


def hostile_pool() -> FakePool:
    """A model whose reasoning, answer and tool call are all markup."""
    call = json.dumps({"name": "weather", "arguments": {"city": HOSTILE}})
    texts = ("<think>", HOSTILE, "</think>", HOSTILE, f"<tool_call>\n{call}\n</tool_call>")

    def script(request: GenerationRequest) -> Iterable[Event]:
        return answer(request, *texts, tools_active=True)

    return FakePool(script, builtin_format("hermes"))


def assert_harmless(page: Page) -> None:
    """The model's markup made no element, and its script did not run."""
    assert page.browser.execute_script("return window.hacked") is None
    assert page.find_all(".pane img, .pane script, .pane a, #alternatives img") == []


@pytest.mark.process
def test_hostile_answers_reasoning_and_tool_calls_stay_text(
    open_page: OpenPage, stand_in: StandIn
) -> None:
    with stand_in(hostile_pool()) as url:
        page = open_page(url)
        page.open()
        page.ready(models=1)
        tool = {"type": "function", "function": {"name": "weather", "parameters": {}}}
        page.set(tools=json.dumps([tool]), system=HOSTILE)
        page.send(HOSTILE)
        page.finished()

        left = page.panes[0]
        assert HOSTILE in page.find(".token-text", left).text
        assert page.find(".asked-text", left).text == HOSTILE
        reasoning = page.find(".reasoning", left)
        assert not page.find(".reasoning-text", left).is_displayed()
        page.find("summary", reasoning).click()
        assert HOSTILE in page.find(".reasoning-text", left).text
        assert json.loads(page.find(".arguments", left).text) == {"city": HOSTILE}
        page.click_token(0, 0)
        assert "<img" in page.find("#alternatives").text
        assert_harmless(page)


@pytest.mark.process
def test_tool_results_go_back_to_the_model(open_page: OpenPage, stand_in: StandIn) -> None:
    pool = hostile_pool()
    with stand_in(pool) as url:
        page = open_page(url)
        page.open()
        page.ready(models=1)
        tool = {"type": "function", "function": {"name": "weather", "parameters": {}}}
        page.set(tools=json.dumps([tool]))
        Select(page.find("[name=tool_choice]")).select_by_value("required")
        page.send("How is the weather?")
        page.finished()
        page.find(".call textarea", page.panes[0]).send_keys("sunny")
        page.act("Send results", page.find(".answer", page.panes[0]))
        page.wait(lambda: len(page.find_all(".answer", page.panes[0])) == 2, "the second answer")
        page.finished()
        results = [
            message.content
            for request in pool.client.requests
            for message in getattr(request.prompt, "messages", [])
            if message.role == "tool"
        ]
        assert "sunny" in results
        choices = [getattr(request.prompt, "tool_choice", None) for request in pool.client.requests]
        assert {choice.mode for choice in choices if choice} == {"required"}


@pytest.mark.process
def test_a_hostile_session_file_stays_text(
    open_page: OpenPage, stand_in: StandIn, tmp_path: Path
) -> None:
    span = {"text": HOSTILE, "tokens": [{"text": HOSTILE, "logprob": -1, "top": [[HOSTILE, -1]]}]}
    made = {"content": HOSTILE, "spans": [span], "error": HOSTILE, "finish": HOSTILE}
    pane = {"model": HOSTILE, "answers": [made]}
    session = {
        "format": "dragoman-session",
        "version": 1,
        "mode": HOSTILE,
        "prompts": [HOSTILE],
        "panes": [pane, {"answers": "none"}],
        "settings": {"system": HOSTILE, "unknown": 1},
    }
    file = tmp_path / "session.json"
    file.write_text(json.dumps(session))
    with stand_in(FakePool()) as url:
        page = open_page(url)
        page.open()
        page.ready(models=1)
        page.find("#session-file").send_keys(str(file))
        page.wait(lambda: page.find_all(".answer"), "the imported answer")
        page.click_token(0, 0)
        assert_harmless(page)


@pytest.mark.process
def test_what_is_damaged_in_a_session_file_is_left_out(
    open_page: OpenPage, stand_in: StandIn, tmp_path: Path
) -> None:
    answers = [[None, 5, {"content": "an answer", "calls": [None], "spans": "none"}], None]
    turn = {"id": "a", "parent": None, "prompt": "a question", "answers": answers, "shown": "x"}
    turns: list[object] = [None, 5, [], {"parent": "nowhere"}, turn]
    session = {"format": "dragoman-session", "version": 2, "turns": turns, "chosen": {"": "a"}}
    file = tmp_path / "session.json"
    file.write_text(json.dumps(session))
    with stand_in(FakePool()) as url:
        page = open_page(url)
        page.open()
        page.ready(models=1)
        page.find("#session-file").send_keys(str(file))
        page.wait(lambda: page.find_all(".answer"), "the imported answer")


def test_markup_that_got_into_the_page_would_not_run(page: Page) -> None:
    page.expected_complaints += ["404"]
    page.browser.execute_script(
        "document.querySelector('.reading').innerHTML = arguments[0];"
        "const script = document.createElement('script');"
        "script.textContent = 'window.hacked = 1';"
        "document.body.append(script)",
        HOSTILE,
    )
    page.wait(lambda: "Content Security Policy" in str(page.complaints()), "the CSP")
    page.expected_complaints += ["Content Security Policy"]
    assert page.browser.execute_script("return window.hacked") is None


def test_the_api_key_is_asked_for_until_it_is_right(open_page: OpenPage) -> None:
    with running_server(DRAGOMAN_API_KEYS="sesame") as server:
        page = open_page(server.url)
        page.expected_complaints += ["status of 401"]
        page.open()
        dialog = page.find("#key-dialog")
        page.wait(dialog.is_displayed, "the question")
        page.find("#key-input").send_keys("wrong", Keys.ENTER)
        page.wait(lambda: "Incorrect" in page.find("#key-reason").text, "the question again")
        page.find("#key-input").send_keys("sesame")
        page.find("#key-ok").click()
        page.ready()
        assert not dialog.is_displayed()

        stored = page.browser.execute_script("return JSON.stringify({...localStorage})")
        assert "sesame" not in stored
        page.browser.refresh()
        page.ready()  # the tab still knows it


def test_a_key_may_be_given_that_the_server_does_not_ask_for(
    open_page: OpenPage, stand_in: StandIn
) -> None:
    with stand_in(FakePool()) as url:
        page = open_page(url)
        page.open()
        page.ready(models=1)
        page.menu("#change-key")
        assert page.find("#key-reason").text.startswith("This tab sends it with every request")
        page.find("#key-input").send_keys("sesame", Keys.ENTER)
        kept = "return JSON.stringify({...sessionStorage})"
        page.wait(lambda: "sesame" in page.browser.execute_script(kept), "the key")


def test_the_page_follows_the_system_and_the_button_wins(page: Page) -> None:
    def brightness() -> int:
        script = "return getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)"
        colour: list[int] = page.browser.execute_script(script)
        return sum(colour[:3])

    assert brightness() > 600
    page.open(dark=True)
    page.ready()
    assert brightness() < 150
    toggle = page.find("#toggle-theme")
    assert toggle.text == "Auto"
    toggle.click()
    assert toggle.text == "Light"
    assert brightness() > 600
    page.browser.refresh()
    assert brightness() > 600
    toggle = page.find("#toggle-theme")
    toggle.click()
    assert brightness() < 150


def test_it_is_usable_at_380_pixels(page: Page) -> None:
    page.open(380, 760)
    page.ready()
    page.prompt.send_keys("What is the capital of Australia?")
    page.set(temperature="0", max_tokens="16")
    page.find("#close-settings").click()
    page.find("#send").click()
    page.finished()

    overflowing = page.browser.execute_script(
        "return [...document.querySelectorAll('body *')].filter(one => one.checkVisibility()"
        " && one.getBoundingClientRect().right > innerWidth + 1).map(one => one.outerHTML)"
    )
    assert overflowing == []
    left, right = page.panes
    assert left.is_displayed()
    assert not right.is_displayed()
    page.find("summary", page.find(".native", left)).click()
    page.wait(lambda: "Australia" in page.find(".native-text", left).text, "the native prompt")
    page.find("input[name=shown][value='1'] + span").click()
    assert right.is_displayed()
    assert not left.is_displayed()
    assert page.find_all(".token", right)

    page.find(".menu > summary").click()
    beside_its_mark = page.browser.execute_script("""
        const item = document.querySelector("#toggle-second");
        const words = document.createRange();
        words.selectNodeContents(item);
        const [above, below] = [words, item].map((one) => one.getBoundingClientRect());
        return Math.abs(above.top + above.bottom - below.top - below.bottom) / 2;
    """)
    assert beside_its_mark < 2


def test_a_phone_held_sideways_has_room_for_answers(open_page: OpenPage, stand_in: StandIn) -> None:
    with stand_in(FakePool()) as url:
        page = open_page(url)
        page.open(844, 390)
        page.ready(models=1)
        page.send("Hello")
        page.finished()
        heights = "return [...document.querySelectorAll('.reading')].map((one) => one.clientHeight)"
        assert min(page.browser.execute_script(heights)) > 390 / 3
        lines: list[float] = page.browser.execute_script("""
            const words = document.createRange();
            words.selectNodeContents(document.querySelector("input[name=mode][value=raw] + span"));
            return [...words.getClientRects()].map(({ top }) => top);
        """)
        assert len(lines) > 1
        assert max(lines) - min(lines) < 5


def test_behind_a_proxy_the_page_asks_nothing_outside_of_its_path(
    open_page: OpenPage, stand_in: StandIn
) -> None:
    with stand_in(FakePool(), root_path="/llm") as url:
        page = open_page(f"{url}/llm")
        page.open()
        page.ready(models=1)
        page.send("Hello")
        page.finished()
        page.find("#open-models").click()
        page.wait(lambda: page.find_all("#catalog-list .model-row"), "the catalog")
        script = "return performance.getEntriesByType('resource').map(({ name }) => name)"
        asked: list[str] = page.browser.execute_script(script)
    paths = [address.removeprefix(url) for address in asked]
    assert {"/llm/v1/models", "/llm/v1/chat/completions", "/llm/v1/catalog"} <= {*paths}
    assert [path for path in paths if not path.startswith("/llm/")] == []


@pytest.mark.process
def test_a_page_whose_scripts_do_not_load_says_so_and_can_be_loaded_again(
    open_page: OpenPage, stand_in: StandIn
) -> None:
    with stand_in(FakePool()) as url:
        page = open_page(url)
        page.expected_complaints += ["ERR_BLOCKED_BY_CLIENT"]
        page.browser.execute_cdp_cmd("Network.enable", {})
        page.browser.execute_cdp_cmd("Network.setBlockedURLs", {"urls": ["*/playground/store.js"]})
        page.open()
        page.browser.execute_cdp_cmd("Network.setBlockedURLs", {"urls": []})
        notice = page.find(".incomplete")
        page.wait(notice.is_displayed, "the notice")
        assert "its scripts have not loaded" in notice.text
        page.find("a", notice).click()
        page.ready(models=1)
        assert not page.find_all(".incomplete")


def test_every_control_has_a_name(page: Page) -> None:
    page.find(".menu > summary").click()
    controls = page.find_all("button, select, textarea, input:not([type=file]), summary")
    nameless = [
        control.get_attribute("outerHTML")
        for control in controls
        if control.is_displayed() and not control.accessible_name
    ]
    assert len(controls) > 20
    assert nameless == []


def test_the_keyboard_starts_in_the_prompt_and_goes_round_in_order(page: Page) -> None:
    active = page.browser.switch_to.active_element
    assert active == page.prompt
    for button in ("#add-images", "#send"):
        page.browser.switch_to.active_element.send_keys(Keys.TAB)
        assert page.browser.switch_to.active_element == page.find(button)
    outline = page.find("#send").value_of_css_property("outline-style")
    assert outline == "solid"


def test_answers_are_announced(page: Page) -> None:
    assert page.find("#announcer").get_attribute("aria-live") == "polite"
    page.set(max_tokens="4")
    page.send("Say hello")
    page.finished()
    announcer = page.find("#announcer")
    page.wait(lambda: "done" in str(announcer.get_property("textContent")), "the announcement")


PICTURE = (
    "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAAEUlEQVR4nGM4EaCBFTEMLQkAaplQAc/O"
    "cKAAAAAASUVORK5CYII="
)


@pytest.mark.process
def test_images_are_chosen_pasted_and_dropped_shown_and_sent(
    open_page: OpenPage, stand_in: StandIn, tmp_path: Path
) -> None:
    data = base64.b64decode(PICTURE)
    (tmp_path / "a.png").write_bytes(data)
    (tmp_path / "b.txt").write_text("no image")
    pool = FakePool()
    pool.see()
    with stand_in(pool) as url:
        page = open_page(url)
        page.open()
        page.ready(models=1)
        files = page.find("#image-files")
        files.send_keys(f"{tmp_path / 'a.png'}\n{tmp_path / 'b.txt'}")
        page.wait(lambda: page.find_all("#attached img"), "the thumbnail")
        assert page.find("#attached .problem").text == "b.txt is no PNG, JPEG, WebP, GIF or BMP."
        for event in ("paste", "drop"):
            page.browser.execute_script(_GIVE_IMAGE, event, PICTURE)
        page.wait(lambda: len(page.find_all("#attached img")) == 3, "three thumbnails")
        page.find("#attached button").click()
        page.wait(lambda: len(page.find_all("#attached img")) == 2, "one less")
        page.wait(lambda: page.find("#attached .cost").text == "7 tokens", "what it costs")
        page.send("What is this?")
        page.finished()

        assert page.find_all("#attached img") == []
        left = page.panes[0]
        assert len(page.find_all(".asked img", left)) == 2
        assert page.find(".asked-text", left).text == "What is this?"
        prompt = pool.client.requests[0].prompt
        assert isinstance(prompt, ChatPrompt)
        expected = [ImagePart(data), ImagePart(data), TextPart("What is this?")]
        assert prompt.messages[-1].content == expected
        page.send("And now?")  # without new images, the old ones stay in the conversation
        page.finished()
        prompt = pool.client.requests[-1].prompt
        assert isinstance(prompt, ChatPrompt)
        assert [message.content for message in prompt.messages if message.role == "user"] == [
            expected,
            "And now?",
        ]


_GIVE_IMAGE = """
const [name, data] = arguments;
const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
const given = new DataTransfer();
given.items.add(new File([bytes], "c.png", { type: "image/png" }));
const prompt = document.getElementById("prompt");
prompt.dispatchEvent(name === "paste"
  ? new ClipboardEvent("paste", { clipboardData: given, bubbles: true, cancelable: true })
  : new DragEvent("drop", { dataTransfer: given, bubbles: true, cancelable: true }));
"""


attempts = 0


@pytest.mark.process
def test_a_test_is_run_again_after_a_change_of_the_network(
    open_page: OpenPage, stand_in: StandIn
) -> None:
    global attempts  # noqa: PLW0603 it outlives the first attempt
    attempts += 1
    with stand_in(FakePool()) as url:
        page = open_page(url)
        page.open()
        if attempts == 1:
            page.browser.execute_script("console.error(arguments[0])", NETWORK_CHANGED)
            page.wait(lambda: False, "what never comes")
    assert attempts == 2
