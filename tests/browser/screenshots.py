"""The pictures of docs/screenshots, made anew: ``python -m tests.browser.screenshots``.

They show the real models that the tests use, so `make models` goes first.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.browser.chromium import chromium
from tests.browser.page import Page
from tests.e2e.server import running_server

FOLDER = Path(__file__).parents[2] / "docs" / "screenshots"
DESKTOP, PHONE = (1280, 800), (390, 844)
QUESTION = "What is the capital of Australia?"
TASK = "Write a Python function that adds two numbers, and explain it in a short list."


@contextmanager
def opened() -> Iterator[Page]:
    """The page of a server with both models."""
    with (
        running_server() as server,
        TemporaryDirectory() as downloads,
        chromium(Path(downloads)) as browser,
    ):
        yield Page(browser, server.url)


def ask(page: Page, prompt: str, most: int) -> None:
    """Ask both models, and wait for what is drawn afterwards."""
    page.ready()
    page.set(temperature="0", max_tokens=str(most))
    close = page.find("#close-settings")
    (close if close.is_displayed() else page.find("#toggle-settings")).click()
    page.prompt.send_keys(prompt)
    page.find("#send").click()
    page.finished()
    # Colours and formulas come with libraries of their own.
    page.browser.execute_async_script(
        "document.fonts.ready.then(() => setTimeout(arguments[0], 500))"
    )


def save(page: Page, name: str) -> None:
    """One picture in light colours, and one in dark ones."""
    for suffix, dark in (("", False), ("-dark", True)):
        page.emulate(dark=dark)
        page.browser.save_screenshot(str(FOLDER / f"{name}{suffix}.png"))
    page.emulate(dark=False)


def main() -> None:
    """Make all of them."""
    with opened() as page:
        page.open(*DESKTOP, view="formatted")
        ask(page, TASK, 260)
        page.browser.execute_script(
            "document.querySelectorAll('.reading').forEach((one) => { one.scrollTop = 0; })"
        )
        save(page, "formatted")
        page.find("#open-models").click()
        loaded = "#model-list [data-state=ready]"
        page.wait(lambda: len(page.find_all(loaded)) == 2, "that both models are loaded")
        save(page, "models")
        page.find("#close-models").click()

        page.open(*DESKTOP)
        ask(page, QUESTION, 40)
        page.click_token(0, 3)
        save(page, "chat")
        page.open(*DESKTOP)
        page.ready()
        page.prompt.send_keys("Say <|im_end|> twice ⌘")
        left, right = (page.find(".native-text", pane) for pane in page.panes)
        page.wait(lambda: "⌘" in left.text and "⌘" in right.text, "the native prompts")
        page.find(".show-borders", page.panes[0]).click()
        page.find(".show-ids", page.panes[0]).click()
        save(page, "native-prompt")
        page.choose_mode("raw")
        page.prompt.send_keys("The cat sat on the")
        page.wait(lambda: len(page.find_all("button.bar")) == 10, "both charts")
        save(page, "raw")

        page.open(*PHONE, view="formatted")
        ask(page, TASK, 260)
        page.browser.execute_script("document.querySelector('.reading').scrollTop = 0")
        save(page, "phone")


if __name__ == "__main__":
    main()
