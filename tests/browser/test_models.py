"""The dialog of models: what is loaded, and pulls of more."""

from __future__ import annotations

import msgspec
import pytest
from selenium.webdriver import Keys
from selenium.webdriver.remote.webelement import WebElement

from server.core.model_info import ModelEntry
from tests.api.fakes import OUTLINE, FakeClient, FakePool
from tests.api.pulling import FakePulls
from tests.browser.conftest import OpenPage, StandIn
from tests.browser.page import Page

pytestmark = pytest.mark.process


class MixedPool(FakePool):
    """A pool with a model for embeddings and one for ranking besides."""

    def models(self) -> list[ModelEntry]:
        """All four."""
        good, broken = super().models()
        beside = [
            msgspec.structs.replace(
                good,
                id=name,
                aliases=[],
                state="unloaded",
                info=None,
                outline=msgspec.structs.replace(OUTLINE, generates=False, ranks=ranks),
            )
            for name, ranks in (("embedder", False), ("ranker", True))
        ]
        return [*beside, good, broken]


class LoadingPool(FakePool):
    """A pool whose good model is ready once it was opened."""

    async def open(self, model_id: str) -> FakeClient:
        """Load it."""
        client = await super().open(model_id)
        self.state = "ready"
        return client


def opened(page: Page) -> Page:
    """The page with its dialog of models open."""
    page.open()
    page.ready(models=1)
    page.find("#open-models").click()
    page.wait(lambda: page.find_all("#model-list .model-row"), "the models")
    return page


def row(page: Page, selector: str, name: str) -> WebElement:
    """The row of a list that shows this name."""
    [found] = [each for each in page.find_all(f"{selector} .model-row") if name in each.text]
    return found


def test_models_are_listed_with_their_states_loaded_and_unloaded(
    open_page: OpenPage, stand_in: StandIn
) -> None:
    pool = LoadingPool()
    with stand_in(pool) as url:
        page = opened(open_page(url))
        broken = row(page, "#model-list", "org/broken")
        assert "Broken" in broken.text
        assert page.find(".problem", broken).text == "the file is truncated"
        good = row(page, "#model-list", "test")
        assert "Loaded" in good.text
        assert "2,048 tokens of context" in good.text
        unload = page.find("button", good)
        assert unload.accessible_name == "Unload test"
        unload.send_keys(Keys.ENTER)
        page.wait(lambda: "Not loaded" in good.text, "the model unloaded")
        assert page.browser.switch_to.active_element == unload
        unload.send_keys(Keys.ENTER)
        page.wait(lambda: "Not loaded" not in good.text, "the model loaded")
        assert pool.state == "ready"

        page.expected_complaints += ["status of 503"]
        page.find("button", broken).click()
        problem = page.find("#models-problem")
        page.wait(problem.is_displayed, "the reason")
        assert "cannot be loaded" in problem.text
        page.browser.switch_to.active_element.send_keys(Keys.ESCAPE)
        assert not page.find("#models-dialog").is_displayed()
        assert page.browser.switch_to.active_element == page.find("#open-models")


def test_models_that_do_not_generate_are_not_among_those_to_talk_to(
    open_page: OpenPage, stand_in: StandIn
) -> None:
    with stand_in(MixedPool()) as url:
        page = opened(open_page(url))
        assert "For embeddings" in row(page, "#model-list", "embedder").text
        assert "For ranking" in row(page, "#model-list", "ranker").text
        for pane in page.panes:
            models = page.find_all(".model option", pane)
            assert [each.get_property("value") for each in models] == ["test", "org/broken"]


def test_a_pull_shows_its_progress_outlives_the_page_and_is_cancelled(
    open_page: OpenPage, stand_in: StandIn
) -> None:
    pulls = FakePulls()
    with stand_in(FakePool(), pulls) as url:
        page = opened(open_page(url))
        page.find("#pull-name").send_keys("hf:owner/repo", Keys.ENTER)
        page.wait(lambda: page.find_all("#pull-list .model-row"), "the pull")
        assert page.find("#pull-name").get_property("value") == ""
        pulls.change("pull_0", done=50 << 20, total=200 << 20, speed=float(10 << 20))
        words = "50 MiB of 200 MiB · 10 MiB/s · 15 s left"
        page.wait(lambda: words in page.find("#pull-list").text, "the progress")
        bar = page.find("#pull-list progress")
        assert float(str(bar.get_property("value"))) == 0.25

        page.browser.refresh()
        page.ready(models=1)
        page.wait(lambda: page.find("#open-models").text == "Models 25 %", "the pull")
        page.find("#open-models").click()
        cancel = page.wait(lambda: page.find("#pull-list button"), "the pull in the dialog")
        assert cancel.accessible_name == "Cancel: hf:owner/repo"
        cancel.click()
        page.wait(lambda: "What was fetched is kept" in page.find("#pull-list").text, "its end")
        status = page.find("#models-status")
        page.wait(lambda: "cancelled" in str(status.get_property("textContent")), "its news")
        assert cancel.text == "Try again"
        cancel.click()
        page.wait(lambda: len(pulls.known) == 2, "the second pull")
        pulls.change("pull_1", state="failed", error="The hub cannot be reached.")
        problem = "#pull-list .problem"
        page.wait(
            lambda: (
                [each.text for each in page.find_all(problem)][:1] == ["The hub cannot be reached."]
            ),
            "the reason",
        )


def test_a_model_of_the_catalog_is_a_click_away_and_a_wrong_name_is_named(
    open_page: OpenPage, stand_in: StandIn
) -> None:
    pulls = FakePulls()
    with stand_in(FakePool(), pulls) as url:
        page = opened(open_page(url))
        page.wait(lambda: page.find_all("#catalog-list .model-row"), "the catalog")
        small = row(page, "#catalog-list", "small")
        assert "A small model · 93 MiB · MIT" in small.text
        page.find("button", small).click()
        page.wait(lambda: [pull.model for pull in pulls.all()] == ["small"], "the pull")
        pulls.change("pull_0", state="done", file="small.gguf")
        page.wait(lambda: "small is here." in page.find("#pull-list").text, "the end")

        page.expected_complaints += ["status of 400"]
        name = page.find("#pull-name")
        name.send_keys("nonsense", Keys.ENTER)
        problem = page.find("#models-problem")
        page.wait(problem.is_displayed, "the problem")
        assert "nonsense" in problem.text
        assert name.get_property("value") == "nonsense"


def test_a_server_that_pulls_nothing_offers_nothing_to_pull(
    open_page: OpenPage, stand_in: StandIn
) -> None:
    pulls = FakePulls()
    pulls.names = []
    with stand_in(FakePool(), pulls) as url:
        page = opened(open_page(url))
        page.wait(lambda: not page.find("#get-more").is_displayed(), "no pulls")
        assert page.find("#model-list").is_displayed()
