"""Formatted answers: Markdown, code, tables and formulas, and markup that does nothing."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path
from subprocess import check_output

import pytest

from server.core.events import Event
from server.core.request import GenerationRequest
from tests.api.fakes import FakePool, answer
from tests.browser.conftest import OpenPage, StandIn
from tests.browser.page import Page

pytestmark = pytest.mark.process


SAMPLE = (Path(__file__).parent / "markdown_sample.md").read_text()
PIECE = 7


def writing(text: str) -> FakePool:
    """A model that always answers with ``text``, in pieces."""

    def script(request: GenerationRequest) -> Iterable[Event]:
        return answer(request, *(text[at : at + PIECE] for at in range(0, len(text), PIECE)))

    return FakePool(script)


def installed(font: str) -> bool:
    """Whether the system has a font of this name."""
    command = shutil.which("fc-list")
    return command is not None and bool(check_output([command, font]))


def ask(page: Page, view: str | None = None) -> None:
    """Open the page and let the model answer."""
    page.open(view=view)
    page.ready(models=1)
    page.send("Go")
    page.finished()


def texts(page: Page, selector: str) -> list[str]:
    """The texts of elements in the left pane's answer."""
    return [each.text for each in page.find_all(f".answer {selector}", page.panes[0])]


def test_answers_are_formatted(open_page: OpenPage, stand_in: StandIn) -> None:
    with stand_in(writing(SAMPLE)) as url:
        page = open_page(url)
        ask(page)
        page.wait(lambda: page.find_all(".answer math", page.panes[0]), "formulas")
        page.wait(lambda: page.find_all(".answer .hljs-keyword", page.panes[0]), "colours")
        assert texts(page, "h3") == ["Fourier series"]
        assert texts(page, "h4") == ["In code"]
        assert texts(page, "strong") == ["sum of waves"]
        assert len(texts(page, "math")) == 3
        assert texts(page, ".hljs-keyword") == ["import", "as", "def", "return"]
        assert texts(page, "th") == ["Terms", "Error at x = 1", "Converges"]
        assert texts(page, "td") == ["1", "0.0714", "no", "5", "0.0288", "slowly"]
        assert texts(page, "ol ul li")[0] == "plot, and"
        assert texts(page, ".task") == ["It costs $5, not $6 & more", "The rest"]
        assert [box.is_selected() for box in page.find_all(".task input", page.panes[0])] == [
            True,
            False,
        ]
        link = page.find(".answer a", page.panes[0])
        assert link.get_attribute("href") == "https://example.org/gibbs"
        assert link.get_attribute("target") == "_blank"
        assert set(str(link.get_attribute("rel")).split()) == {
            "noopener",
            "noreferrer",
            "nofollow",
        }


def test_formulas_are_set_in_a_font_for_mathematics(open_page: OpenPage, stand_in: StandIn) -> None:
    """Only such a font says where an index goes."""
    if not installed("DejaVu Math TeX Gyre"):
        pytest.skip("fonts-dejavu-extra is not installed")
    with stand_in(writing(r"$$a_0 + b$$")) as url:
        page = open_page(url)
        ask(page)
        page.wait(lambda: page.find_all(".answer msub", page.panes[0]), "the formula")
        base, index = page.browser.execute_script(
            "return [...document.querySelectorAll('.answer msub > *')].slice(0, 2)"
            ".map((one) => one.getBoundingClientRect().bottom)"
        )
        assert index > base + 1


def test_a_growing_answer_ends_as_the_whole_one_and_keeps_its_finished_blocks(
    open_page: OpenPage, stand_in: StandIn
) -> None:
    with stand_in(writing("")) as url:
        page = open_page(url)
        page.open(view=None)
        page.ready(models=1)
        page.browser.set_script_timeout(60)
        first_stays, grown, whole = page.browser.execute_async_script(_GROW, SAMPLE)
        assert first_stays
        assert grown == whole
        assert "<table>" in whole


_GROW = """
const [text, done] = arguments;
const { FormattedText } = await import("./playground/formatted.js");
// Colours and formulas are loaded before, so that both texts have them at once.
const whole = new FormattedText();
whole.show(text);
const until = async (condition) => {
  while (!condition()) await new Promise((resolve) => setTimeout(resolve, 5));
};
const has = (selector) => whole.element.querySelector(selector);
await until(() => has("math") && has(".hljs-keyword"));
whole.show(text);
const grown = new FormattedText();
let first = null;
for (let end = 1; end <= text.length; end += 31) {
  grown.grow(text.slice(0, end));
  await new Promise((resolve) => setTimeout(resolve, 20));
  if (grown.element.childElementCount > 2) first ??= grown.element.firstElementChild;
}
grown.grow(text);
await until(() => grown.element.innerHTML === whole.element.innerHTML);
done([grown.element.firstElementChild === first, grown.element.innerHTML, whole.element.innerHTML]);
"""


def test_a_pane_stays_at_the_end_unless_one_scrolls_away(
    open_page: OpenPage, stand_in: StandIn
) -> None:
    with stand_in(writing(SAMPLE)) as url:
        page = open_page(url)
        ask(page)
        page.wait(lambda: page.find_all(".answer .hljs-keyword", page.panes[1]), "colours")
        page.wait(lambda: page.find_all(".answer math", page.panes[1]), "formulas")
        page.wait(lambda: page.browser.execute_script(_FROM_END) == [0, 0], "both at their ends")
        page.browser.execute_script("document.querySelector('.reading').scrollTop = 0")
        page.wait(lambda: page.browser.execute_script(_FROM_END)[0] > 100, "the beginning")
        page.find(".views [data-view=text]", page.panes[1]).click()
        page.wait(lambda: page.browser.execute_script(_FROM_END)[1] == 0, "the end of the text")
        assert page.browser.execute_script(_FROM_END)[0] > 100


_FROM_END = """
return [...document.querySelectorAll(".reading")].map((one) =>
  Math.round(one.scrollHeight - one.scrollTop - one.clientHeight));
"""

HARMLESS = """\
<b>bold</b> <img src=x> and <!-- a comment -->

<script>window.hacked = 1</script>

[click](javascript:window.hacked=1) [data](data:text/html,x) [here](/v1/models) [up](//example.org)

![a picture](https://example.org/picture.png) ![inline](data:image/png;base64,AAAA)

<https://example.org/plain> a<br>b &lt;i&gt; \\(\\href{javascript:alert(1)}{x}\\)

`<b>` $\\class{hacked}{x}$

```html"><img src=x>
<i>code</i>
```
"""


def test_markup_in_answers_stays_text_and_nothing_is_loaded(
    open_page: OpenPage, stand_in: StandIn
) -> None:
    with stand_in(writing(HARMLESS)) as url:
        page = open_page(url)
        ask(page)
        page.wait(lambda: page.browser.execute_script("return Boolean(window.temml)"), "formulas")
        shown = page.find(".formatted", page.panes[0])
        for text in ("<b>bold</b> <img src=x>", "<!-- a comment -->", "<i>code</i>", "a\nb <i>"):
            assert text in shown.text
        assert "<script>window.hacked = 1</script>" in shown.text
        assert "[click](javascript:window.hacked=1) [data](data:text/html,x)" in shown.text
        links = {a.text: a.get_attribute("href") for a in page.find_all("a", shown)}
        assert links == {
            "Image: a picture": "https://example.org/picture.png",
            "https://example.org/plain": "https://example.org/plain",
        }
        assert page.find_all("b, i, img, script, style, .hacked, [href^=javascript]", shown) == []
        assert page.browser.execute_script("return window.hacked") is None


def test_every_answer_has_three_views_and_the_choice_is_remembered(
    open_page: OpenPage, stand_in: StandIn
) -> None:
    with stand_in(writing("**bold** and\n\n\n`code`")) as url:
        page = open_page(url)
        ask(page)
        left, right = page.panes
        assert texts(page, ".formatted strong") == ["bold"]
        assert page.find("[aria-pressed=true]", page.find(".views", left)).text == "Formatted"
        page.find(".views [data-view=text]", left).click()
        assert page.find(".plain-text", left).text == "**bold** and\n\n\n`code`"
        assert page.find_all(".formatted", right)
        page.find(".views [data-view=tokens]", left).click()
        assert page.find_all(".token", left)[0].text == "**bold*"

        page.send("And again")
        page.finished()
        assert len(page.find_all(".answer .token-text", left)) == 2
        page.browser.refresh()
        page.ready(models=1)
        page.send("Go")
        page.finished()
        assert page.find_all(".answer .token", page.panes[0])


def test_code_is_copied_as_it_was_written(open_page: OpenPage, stand_in: StandIn) -> None:
    with stand_in(writing("```python\nif x < 1:\n    y = '&lt;'\n```")) as url:
        page = open_page(url)
        granted = {"permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"], "origin": url}
        page.browser.execute_cdp_cmd("Browser.grantPermissions", granted)
        ask(page)
        copy = page.find(".code-block button", page.panes[0])
        copy.click()
        page.wait(lambda: copy.text == "Copied", "the copy")
        copied = page.browser.execute_async_script(
            "navigator.clipboard.readText().then(arguments[0])"
        )
        assert copied == "if x < 1:\n    y = '&lt;'"


@pytest.mark.parametrize("text", [">" * 20_000, "[" * 20_000])
def test_nesting_without_end_leaves_the_text(
    open_page: OpenPage, stand_in: StandIn, text: str
) -> None:
    with stand_in(writing("")) as url:
        page = open_page(url)
        page.open(view=None)
        page.ready(models=1)
        shown = page.browser.execute_async_script(
            "const [text, done] = arguments;"
            'const { FormattedText } = await import("./playground/formatted.js");'
            "const shown = new FormattedText();"
            "shown.show(text);"
            "done(shown.element.textContent)",
            text,
        )
        # The outermost quotes are quotes.
        assert shown == text[len(text) - len(shown) :]
        assert len(shown) >= len(text) - 20


def test_formulas_are_looked_for_in_one_paragraph_at_a_time(
    open_page: OpenPage, stand_in: StandIn
) -> None:
    with stand_in(writing("")) as url:
        page = open_page(url)
        page.open(view=None)
        page.ready(models=1)
        found = page.browser.execute_async_script(
            "const done = arguments[0];"
            'const { mathsSyntax } = await import("./playground/maths.js");'
            "const { start } = mathsSyntax.find(({ level }) => level === 'block');"
            r"done([start('text\n$$x$$'), start('text\n \n$$x$$')])"
        )
        assert found == [5, -1]


@pytest.mark.parametrize("mark", ["- ", "1. ", "> ", "* - "])
def test_what_is_nested_without_end_is_shown_as_text(
    open_page: OpenPage, stand_in: StandIn, mark: str
) -> None:
    indent = " " * len(mark)
    steps = [f"{indent * depth}{mark}step {depth}" for depth in range(60)]
    lines = [f"{mark * (depth + 1)}step {depth}" for depth in range(60)]
    text = "\n".join(lines if mark == "> " else steps)
    with stand_in(writing(f"Before\n\n{text}\n\n**After**")) as url:
        page = open_page(url)
        ask(page)
        assert texts(page, "strong") == ["After"]
        shown = page.find(".answer .formatted", page.panes[0])
        deepest = page.browser.execute_script(
            "const depth = (at, top) => at === top ? 0 : 1 + depth(at.parentElement, top);"
            "return Math.max(...[...arguments[0].querySelectorAll('li, blockquote')]"
            ".map((each) => depth(each, arguments[0])))",
            shown,
        )
        assert 10 <= deepest <= 20
        assert all(f"step {depth}" in shown.text for depth in range(60))
