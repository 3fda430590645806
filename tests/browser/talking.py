"""Conversations on the page, with models that follow a script."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, cast

from server.core.events import Accepted, Delta, Event
from server.core.request import GenerationRequest
from tests.api.fakes import FakePool, answer
from tests.browser.conftest import OpenPage
from tests.browser.page import Page

FOR_EVER = 600.0


def counting() -> FakePool:
    """A model whose answers differ: it counts its requests."""
    count = 0

    def script(request: GenerationRequest) -> Iterable[Event]:
        nonlocal count
        count += 1
        return answer(request, f"Answer {count}.")

    return FakePool(script)


def endless(*texts: str) -> FakePool:
    """A model that says ``texts`` and then never ends."""

    def script(request: GenerationRequest) -> Iterable[Event | float]:
        yield Accepted(id=1, prompt_tokens=5)
        yield from (Delta(id=1, index=0, text=text, tokens=1, logprobs=[]) for text in texts)
        yield FOR_EVER

    return FakePool(script)


def opened(open_page: OpenPage, url: str) -> Page:
    """The page with one pane, so that each prompt has one answer."""
    page = open_page(url)
    page.open()
    page.ready(models=1)
    page.menu("#toggle-second")
    return page


def ask(page: Page, text: str) -> None:
    page.send(text)
    page.finished()


def asked(page: Page, pane: int = 0) -> list[str]:
    return [each.text for each in page.find_all(".asked-text", page.panes[pane])]


def answered(page: Page) -> list[str]:
    return [each.text for each in page.find_all(".answer .token-text", page.panes[0])]


def kept(page: Page) -> dict[str, Any]:
    """The one kept conversation's head."""
    (head,) = json.loads(page.stored())
    return cast("dict[str, Any]", head)


def listed(page: Page, *titles: str) -> None:
    """Wait until exactly these conversations are listed."""
    page.wait(lambda: page.titles() == list(titles), f"the list {titles}")
