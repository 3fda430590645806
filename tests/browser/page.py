"""The playground as its user sees, clicks and types it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver import ActionChains, Chrome, Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

# Two models that load and answer on a busy machine with two cores.
_PATIENCE_SECONDS = 100
NETWORK_CHANGED = "net::ERR_NETWORK_CHANGED"

T = TypeVar("T")


class Page:
    """One opened playground; it collects the complaints of the browser."""

    def __init__(self, browser: Chrome, url: str) -> None:
        self.browser = browser
        self.url = url
        # `open` goes by way of a document that names no icon.
        self.expected_complaints: list[str] = ["/favicon.ico"]
        self._complaints: list[str] = []

    def open(
        self,
        width: int = 1360,
        height: int = 860,
        *,
        dark: bool = False,
        view: str | None = "tokens",
    ) -> None:
        """Load the page anew, with empty storage but for the ``view`` of answers."""
        self.resize(width, height)
        self.emulate(dark=dark)
        # No page of ours is open then, with its database, or puts aside what it has not saved yet.
        self.browser.get(f"{self.url}/health")
        self.browser.execute_cdp_cmd(
            "Storage.clearDataForOrigin", {"origin": self.url, "storageTypes": "indexeddb"}
        )
        self.browser.execute_script("sessionStorage.clear(); localStorage.clear()")
        if view is not None:
            self.browser.execute_script("localStorage['dragoman-view'] = arguments[0]", view)
        self.browser.get_log("browser")  # type: ignore[no-untyped-call]
        self.browser.get(self.url)

    def emulate(self, *, dark: bool) -> None:
        """Emulate a system that prefers dark or light colours."""
        features = [
            {"name": "prefers-color-scheme", "value": "dark" if dark else "light"},
            {"name": "prefers-reduced-motion", "value": "reduce"},
        ]
        self.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def resize(self, width: int, height: int) -> None:
        """Set the size of the window; a narrow or low one emulates a phone."""
        phone = min(width, height) < 500
        self.browser.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": phone},
        )
        self.browser.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": phone})

    def wait(self, condition: Callable[[], T], what: str) -> T:
        """Wait until ``condition`` is true; returns its value.

        In vain it would wait for what a request brings that Chromium ended: that fails at once.
        """

        def met() -> T:
            assert not any(NETWORK_CHANGED in each for each in self.complaints()), NETWORK_CHANGED
            return condition()

        waiting = WebDriverWait(
            self.browser,
            _PATIENCE_SECONDS,
            poll_frequency=0.05,
            ignored_exceptions=[StaleElementReferenceException],
        )
        result: T = waiting.until(lambda _: met(), f"waited for {what}")
        return result

    def find(self, selector: str, within: WebElement | None = None) -> WebElement:
        return (within or self.browser).find_element(By.CSS_SELECTOR, selector)

    def find_all(self, selector: str, within: WebElement | None = None) -> list[WebElement]:
        return (within or self.browser).find_elements(By.CSS_SELECTOR, selector)

    @property
    def prompt(self) -> WebElement:
        return self.find("#prompt")

    @property
    def panes(self) -> list[WebElement]:
        return self.find_all(".pane")

    def ready(self, models: int = 2) -> None:
        """Wait until both lists show the models."""
        self.wait(
            lambda: all(
                len(self.find_all(".model option:not([disabled])", pane)) >= models
                for pane in self.panes
            ),
            "the list of models",
        )

    def set(self, **settings: str) -> None:
        """Fill in fields of the settings."""
        if not self.find("#settings").is_displayed():
            self.find("#toggle-settings").click()
        for name, value in settings.items():
            field = self.find(f"#settings [name={name}]")
            field.clear()
            field.send_keys(value)

    def choose_mode(self, mode: str) -> None:
        self.find(f"input[name=mode][value={mode}] + span").click()

    def send(self, text: str) -> None:
        """Type a prompt and send it with the keyboard."""
        self.prompt.send_keys(text, Keys.CONTROL, Keys.ENTER)

    def finished(self, *, failing: bool = False) -> None:
        """Wait until all answers are complete; fails if one failed, unless that is expected."""
        self.wait(lambda: self.find("#send").is_displayed(), "the end of the answers")
        problems = [problem.text for problem in self.find_all(".answer .problem")]
        assert any(problems) == failing, problems

    def answers(self) -> list[str]:
        """The last answer of each pane."""
        return [self.find_all(".token-text", pane)[-1].text for pane in self.panes]

    def click_token(self, pane: int, number: int) -> None:
        """Click a token of a pane's last answer."""
        tokens = self.find_all(".token", self.find_all(".answer", self.panes[pane])[-1])
        ActionChains(self.browser).scroll_to_element(tokens[number]).perform()
        tokens[number].click()

    def menu(self, item: str) -> None:
        """Choose an item of the page's menu."""
        self.find(".menu > summary").click()
        self.find(item).click()

    def new_conversation(self) -> None:
        """Begin another conversation and wait until it is shown."""
        self.find("#new-session").click()
        self.wait(lambda: not self.find_all(".asked, .answer"), "an empty conversation")

    def stored(self, store: str = "heads") -> str:
        """All records of a store of the page's database, as JSON."""
        script = """
            const [store, done] = arguments;
            indexedDB.open("dragoman-playground").onsuccess = ({ target: { result: base } }) => {
              base.transaction(store).objectStore(store).getAll().onsuccess = ({ target }) => {
                base.close();
                done(JSON.stringify(target.result));
              };
            };
        """
        records: str = self.browser.execute_async_script(script, store)
        return records

    def click(self, selector: str) -> None:
        """Click an element of a list that may be made anew at any moment."""

        def clicked() -> bool:
            self.find(selector).click()
            return True

        self.wait(clicked, selector)

    def titles(self) -> list[str]:
        """The listed conversations."""
        return [title.text for title in self.find_all(".conversation-title")]

    def act(self, action: str, within: WebElement) -> None:
        """Click what can be done with a message or an answer."""
        buttons = self.find_all(
            ".asked-actions button, .answer-actions button, .retry button", within
        )
        (chosen,) = [button for button in buttons if button.text == action]
        ActionChains(self.browser).scroll_to_element(chosen).perform()
        chosen.click()

    def complaints(self) -> list[str]:
        """The complaints in the browser's console, except those that the test expects."""
        log = self.browser.get_log("browser")  # type: ignore[no-untyped-call]
        self._complaints += [entry["message"] for entry in log]
        return [
            complaint
            for complaint in self._complaints
            if not any(text in complaint for text in self.expected_complaints)
        ]
