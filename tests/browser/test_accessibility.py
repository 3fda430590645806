"""The page for those who do not see it, or hit it with a finger, in each of its states."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver import Keys

from server.core.errors import WorkerDied
from server.core.events import Event
from server.core.request import ChatPrompt, GenerationRequest
from server.reply.builtin_formats import builtin_format
from tests.api.fakes import FakePool, answer
from tests.api.pulling import FakePulls
from tests.browser.conftest import OpenPage, StandIn
from tests.browser.page import Page
from tests.conformance.node_packages import NODE, missing_packages

pytestmark = pytest.mark.process

SAMPLE = (Path(__file__).parent / "markdown_sample.md").read_text()
SIZES = {"desktop": (1280, 800), "phone": (390, 844), "phone held sideways": (844, 390)}
# WCAG and axe's own best practices, all of them. Where it cannot tell the contrast of a text, that
# is a finding too, unless the text lies below something else or hardly has letters.
_RUN = """
const done = arguments[arguments.length - 1];
const summary = ({ html, failureSummary }) => [html.slice(0, 200), failureSummary];
const told = /overlapped by another|partially obscured|too short|only non-text/;
const untold = ([, why]) => !told.test(why);
axe.run(document, { resultTypes: ["violations", "incomplete"] }).then(
  ({ violations, incomplete }) => done([
    ...violations.map(({ id, nodes }) => [id, nodes.map(summary)]),
    ...incomplete.filter(({ id }) => id === "color-contrast")
      .map(({ id, nodes }) => [id, nodes.map(summary).filter(untold)]),
  ].filter(([, found]) => found.length).map(([id, found]) => [id, found.slice(0, 4)])),
  (error) => done([["axe", [[String(error), ""]]]]));
"""
# Whatever can be hit: links in running text may be smaller, and fields below their own labels.
_SMALL_TARGETS = """
const targets = document.querySelectorAll("button, select, summary, .segmented label,"
  + "input:not([type=radio], [type=checkbox]), label:has([type=checkbox])");
return [...targets].filter((one) => one.checkVisibility({ visibilityProperty: true })
    && !one.closest("[hidden]")).flatMap((one) => {
  const { width, height } = one.getBoundingClientRect();
  return width && (width < 43.9 || height < 43.9)
    ? [`${one.outerHTML.slice(0, 90)} ${Math.round(width)} x ${Math.round(height)}`] : [];
});
"""


def script(request: GenerationRequest) -> Iterable[Event | Exception]:
    """Answers with Markdown, or with thoughts and a call, or dies, as the prompt says."""
    asked = request.prompt.messages[-1].content if isinstance(request.prompt, ChatPrompt) else ""
    if asked == "call":
        call = json.dumps({"name": "weather", "arguments": {"city": "Canberra"}})
        texts = ("<think>", "I should ask.", "</think>", f"<tool_call>\n{call}\n</tool_call>")
        return answer(request, *texts, tools_active=True)
    if asked == "die":
        begun = list(answer(request, "Half an ans", "wer"))
        return [*begun[:-1], WorkerDied("The model has died.")]
    return answer(request, *(SAMPLE[at : at + 40] for at in range(0, len(SAMPLE), 40)))


@pytest.fixture(scope="session")
def axe() -> str:
    """The source of axe-core."""
    if reason := missing_packages():
        pytest.skip(f"axe-core is not here: {reason}")
    return (NODE / "node_modules" / "axe-core" / "axe.min.js").read_text()


def toggle(page: Page, panel: str, *, shown: bool) -> None:
    """Show or hide a panel; on phones it lies over the button that opens it."""
    if page.find(f"#{panel}").is_displayed() != shown:
        close = page.find(f"#close-{panel}")
        (close if close.is_displayed() else page.find(f"#toggle-{panel}")).click()


def states(page: Page, pulls: FakePulls) -> Iterator[str]:
    """Bring the page into each of its states, and name it."""
    page.ready(models=1)
    yield "empty"
    page.send("Hello")
    page.finished()
    page.wait(lambda: page.find_all(".answer math"), "the formulas")
    page.wait(lambda: page.find_all(".answer .hljs-keyword"), "the colours")
    yield "an answer"
    page.find(".views [data-view=tokens]", page.panes[0]).click()
    page.click_token(0, 1)
    yield "alternatives of a token"
    page.browser.switch_to.active_element.send_keys(Keys.ESCAPE)
    page.set(tools='[{"type": "function", "function": {"name": "weather", "parameters": {}}}]')
    yield "settings"
    toggle(page, "settings", shown=False)
    page.send("call")
    page.finished()
    page.find_all(".reasoning summary", page.panes[0])[-1].click()
    yield "reasoning and a call"
    page.send("die")
    page.finished(failing=True)
    yield "an error"
    page.act("Edit", page.find_all(".asked", page.panes[0])[-1])
    yield "a message being edited"
    page.find(".asked textarea", page.panes[0]).send_keys(Keys.ESCAPE)
    page.find(".kind", page.panes[0]).click()
    yield "facts of the model"
    page.find(".kind", page.panes[0]).click()
    native = page.find(".native", page.panes[0])
    if native.get_attribute("open") is None:
        page.find("summary", native).click()
    page.find(".show-borders", native).click()
    page.find(".show-ids", native).click()
    yield "the native prompt by token"
    page.find(".menu > summary").click()
    yield "the menu"
    page.find("#change-key").click()
    yield "the dialog of the key"
    page.browser.switch_to.active_element.send_keys(Keys.ESCAPE)
    page.find(".copy-code", page.panes[0]).click()
    yield "a request as code"
    page.find("#code-dialog button[value=close]").click()
    page.find("#open-models").click()
    page.wait(lambda: page.find_all("#catalog-list .model-row"), "the catalog")
    page.find("#pull-name").send_keys("hf:owner/repo", Keys.ENTER)
    page.wait(lambda: pulls.known, "the pull")
    pulls.change("pull_0", done=1 << 20, total=1 << 22, speed=1e5)
    page.wait(lambda: "left" in page.find("#pull-list").text, "the progress")
    yield "the models"
    page.find("#close-models").click()
    toggle(page, "conversations", shown=True)
    yield "conversations"
    toggle(page, "conversations", shown=False)
    page.choose_mode("raw")
    page.prompt.send_keys("The cat")
    page.wait(lambda: page.find_all(".next .bar"), "the chart")
    yield "raw completion"


@pytest.mark.parametrize("size", SIZES)
def test_no_state_of_the_page_has_findings_of_axe(
    open_page: OpenPage, stand_in: StandIn, axe: str, size: str
) -> None:
    findings: dict[str, Any] = {}
    pulls = FakePulls()
    with stand_in(FakePool(script, builtin_format("hermes")), pulls) as url:
        page = open_page(url)
        page.expected_complaints += ["status of 500"]
        page.open(*SIZES[size], view=None)
        page.browser.execute_script(axe)
        for state in states(page, pulls):
            for dark in (False, True):
                page.emulate(dark=dark)
                if found := page.browser.execute_async_script(_RUN):
                    findings[f"{state}, {'dark' if dark else 'light'}"] = found
            if size != "desktop" and (small := page.browser.execute_script(_SMALL_TARGETS)):
                findings[f"{state}, targets"] = small
    assert not findings, json.dumps(findings, indent=1)
