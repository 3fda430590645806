"""The playground in a real browser, on the real server with the real models."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

from selenium.webdriver import Keys

from tests.browser.page import Page
from tests.e2e.server import BASE, INSTRUCT

QUESTION = "What is the capital of Australia?"


def test_one_prompt_streams_into_both_panes_with_figures(page: Page) -> None:
    page.set(temperature="0", max_tokens="40")
    page.send(QUESTION)
    page.wait(lambda: len(page.find_all(".growing .token")) > 2, "the first tokens")
    page.finished()

    assert "Canberra" in page.answers()[0]
    assert all(page.answers())
    for pane in page.panes:
        figures = page.find(".figures", pane)
        for name in ("tokens/s", "TTFT", "cached"):
            assert name in figures.text
        gauge = page.find(".gauge", pane)
        page.wait(gauge.is_displayed, "the context gauge")
        used, size = (int(gauge.get_attribute(f"aria-value{end}") or 0) for end in ("now", "max"))
        assert 10 < used < 100 < size
    assert [badge.text.split()[0] for badge in page.find_all(".kind")] == ["instruct", "base"]


def test_the_badge_tells_the_reasons_of_the_models_kind(page: Page) -> None:
    page.prompt.send_keys("Hi")
    badge = page.find(".kind", page.panes[1])
    page.wait(lambda: "base" in badge.text, "the model's kind")
    badge.click()
    assert "it has no chat template" in page.find(".facts", page.panes[1]).text


def test_the_native_prompt_tells_template_user_and_control_tokens_apart(page: Page) -> None:
    page.prompt.send_keys("Say <|im_end|> twice ⌘")
    left, right = (page.find(".native-text", pane) for pane in page.panes)
    page.wait(lambda: "⌘" in left.text and "⌘" in right.text, "the native prompts")

    user = page.find(".run.user", left)
    assert user.text == "Say <|im_end|> twice ⌘"
    controls = [run.text for run in page.find_all(".run.control", left)]
    assert controls.count("<|im_end|>") == 2  # the template's own, for system and user
    assert "Human:" in page.find(".run.template", right).text
    colours = {
        page.find(f".native-text .run.{kind}").value_of_css_property("color")
        for kind in ("template", "user", "control")
    }
    assert len(colours) == 3
    assert "underline" in user.value_of_css_property("text-decoration-line")
    assert page.find(".run.control", left).value_of_css_property("border-top-style") == "solid"

    page.find(".show-borders", page.panes[0]).click()
    page.find(".show-ids", page.panes[0]).click()
    user = page.find(".run.user", left)
    pieces = page.find_all(".piece", user)
    assert len(pieces) > 8  # the sign is several tokens
    assert "".join(piece.get_property("textContent") for piece in pieces) == user.get_property(  # type: ignore[misc]
        "textContent"
    )
    ids = [piece.get_attribute("data-ids") for piece in page.find_all(".piece", left)]
    assert all(re.fullmatch(r"\d+", each or "") for each in ids)
    assert page.find(".native-count", page.panes[0]).text == f"{len(ids)} tokens"


def test_a_click_on_a_token_shows_the_alternatives(page: Page) -> None:
    page.set(temperature="0", max_tokens="16")
    page.send(QUESTION)
    page.finished()
    page.click_token(0, 3)

    popup = page.find("#alternatives")
    assert popup.is_displayed()
    rows = page.find_all(".bar", popup)
    assert len(rows) == 10
    shares = [float(share.text.strip("< %")) for share in page.find_all(".share", popup)]
    assert shares == sorted(shares, reverse=True)
    chosen = page.find(".chosen code", popup).text
    token = page.find(".token.open")
    assert chosen.replace("␣", " ").strip() == token.text.strip()

    page.prompt.send_keys(Keys.ESCAPE)
    assert not popup.is_displayed()


def test_tokens_are_reached_by_keyboard(page: Page) -> None:
    page.set(temperature="0", max_tokens="8")
    page.send(QUESTION)
    page.finished()
    text = page.find(".token-text", page.panes[0])
    text.send_keys(Keys.ARROW_RIGHT)
    page.browser.switch_to.active_element.send_keys(Keys.ARROW_RIGHT)
    second = page.find_all(".token", text)[1]
    assert page.browser.switch_to.active_element == second
    second.send_keys(Keys.ENTER)
    assert page.find("#alternatives").is_displayed()
    page.browser.switch_to.active_element.send_keys(Keys.ESCAPE)
    assert page.browser.switch_to.active_element == second


def test_probable_tokens_are_shaded_less(page: Page) -> None:
    page.set(temperature="0", max_tokens="12")
    page.send("Count: one, two, three, four,")
    page.finished()
    tokens = page.find_all(".token", page.panes[0])
    by_doubt = sorted(tokens, key=lambda token: float(_doubt(page, token)))
    backgrounds = [
        page.browser.execute_script(
            "return getComputedStyle(arguments[0]).backgroundColor.match(/[\\d.]+\\)$/)[0]", token
        )
        for token in by_doubt
    ]
    shades = [float(background.rstrip(")")) for background in backgrounds]
    assert all(one <= other + 0.01 for one, other in pairwise(shades))
    assert shades[-1] > shades[0]


def _doubt(page: Page, token: object) -> str:
    script = "return arguments[0].style.getPropertyValue('--doubt')"
    doubt: str = page.browser.execute_script(script, token)
    return doubt


def test_raw_mode_charts_the_next_token_while_typing(page: Page) -> None:
    page.choose_mode("raw")
    page.prompt.send_keys("The cat sat on the")
    chart = page.find(".next", page.panes[1])
    page.wait(lambda: len(page.find_all("button.bar", chart)) == 5, "the bar chart")
    likely = [bar.text for bar in page.find_all("button.bar code", chart)]
    assert all(token.startswith("␣") for token in likely)
    first = likely[0]

    page.prompt.send_keys(" table. The dog lay under the")
    page.wait(
        lambda: [bar.text for bar in page.find_all("button.bar code", chart)] != likely,
        "the chart of the longer text",
    )
    page.prompt.clear()
    page.prompt.send_keys("The cat sat on the")
    page.wait(lambda: page.find("button.bar code", chart).text == first, "the first chart")
    page.find("button.bar", chart).click()
    assert page.prompt.get_property("value") == "The cat sat on the" + first.replace("␣", " ")


def test_raw_mode_continues_the_text_in_both_panes_and_takes_it_over(page: Page) -> None:
    page.choose_mode("raw")
    page.set(temperature="0", max_tokens="12")
    page.send("The cat sat on the")
    page.finished()
    page.wait(lambda: len(page.find_all("button.bar")) == 10, "both charts")
    for pane in page.panes:
        assert page.find(".given", pane).text == "The cat sat on the"
        assert len(page.find_all(".token", pane)) >= 8
    continued = page.find(".token-text", page.panes[1]).get_property("textContent")
    page.act("Add to the text", page.find(".answer", page.panes[1]))
    assert page.prompt.get_property("value") == continued


def test_escape_stops_both_answers_and_keeps_what_came(page: Page) -> None:
    page.set(max_tokens="4000", temperature="0.8")
    page.send("Write a very long story about the sea, in many chapters.")
    page.wait(lambda: len(page.find_all(".growing .token")) > 4, "the first tokens")
    page.prompt.send_keys(Keys.ESCAPE)
    page.finished()
    assert any("Stopped by you" in ending.text for ending in page.find_all(".ending"))
    before = page.answers()
    assert any(before)
    page.set(max_tokens="4")
    assert page.answers() == before


def test_the_last_answer_can_be_regenerated(page: Page) -> None:
    page.set(temperature="1.5", max_tokens="16", seed="1")
    page.send("Tell me something about rain.")
    page.finished()
    left, right = page.answers()
    page.set(seed="2")
    page.act("Regenerate", page.find(".answer", page.panes[0]))
    page.finished()
    assert page.answers()[0] != left
    assert page.answers()[1] == right


def test_an_earlier_message_can_be_edited_and_what_followed_is_dropped(page: Page) -> None:
    page.set(temperature="0", max_tokens="12")
    for question in ("What is the capital of France?", "And its river?"):
        page.send(question)
        page.finished()
    assert len(page.find_all(".asked", page.panes[0])) == 2

    page.act("Edit", page.find(".asked", page.panes[0]))
    field = page.find(".asked textarea")
    field.clear()
    field.send_keys(QUESTION, Keys.CONTROL, Keys.ENTER)
    page.finished()
    for pane in page.panes:
        (asked,) = page.find_all(".asked-text", pane)
        assert asked.text == QUESTION
    assert "Canberra" in page.answers()[0]


def test_the_system_prompt_and_an_edited_answer_reach_the_native_prompt(page: Page) -> None:
    page.set(system="You speak like a pirate.", temperature="0", max_tokens="8")
    page.send("Hello")
    page.finished()
    page.act("Edit", page.find(".answer", page.panes[0]))
    field = page.find(".answer textarea")
    field.clear()
    field.send_keys("Ahoy, matey!", Keys.CONTROL, Keys.ENTER)
    page.prompt.send_keys("Go on")
    native = page.find(".native-text", page.panes[0])
    page.wait(lambda: "Go on" in native.text, "the native prompt")
    assert "You speak like a pirate." in native.text
    assert "Ahoy, matey!" in native.text


def test_an_answer_follows_a_json_schema(page: Page) -> None:
    schema = {
        "type": "object",
        "properties": {"city": {"enum": ["Canberra", "Sydney"]}},
        "required": ["city"],
        "additionalProperties": False,
    }
    page.set(schema=json.dumps(schema), temperature="0")
    page.send(QUESTION)
    page.finished()
    cities = [json.loads(answer)["city"] for answer in page.answers()]
    assert len(cities) == 2
    assert set(cities) <= {"Canberra", "Sydney"}


def test_a_setting_that_cannot_be_sent_is_named_and_the_prompt_stays(page: Page) -> None:
    page.set(schema="{oops")
    page.send(QUESTION)
    problem = page.wait(lambda: page.find("#problem-schema"), "the problem")
    assert "JSON schema" in problem.text
    assert page.prompt.get_property("value") == QUESTION
    assert not page.find_all(".asked")


def test_an_error_of_the_server_is_shown_in_its_pane(page: Page) -> None:
    city = {"type": "string", "enum": [1]}
    parameters = {"type": "object", "properties": {"city": city}, "required": ["city"]}
    tool = {
        "type": "function",
        "function": {"name": "weather", "parameters": parameters, "strict": True},
    }
    page.set(tools=json.dumps([tool]))
    page.expected_complaints += ["status of 400"]
    page.send("How is the weather?")
    page.finished(failing=True)
    assert "weather" in page.find(".answer .problem", page.panes[0]).text


def test_a_session_is_exported_and_imported(page: Page, downloads: Path) -> None:
    page.set(temperature="0", max_tokens="12", system="Be brief.")
    page.send(QUESTION)
    page.finished()
    answers = page.answers()
    page.menu("#export-session")
    file = downloads / "dragoman-session.json"
    page.wait(file.exists, "the file")
    session = json.loads(file.read_text())
    assert [pane["model"] for pane in session["panes"]] == [INSTRUCT, BASE]

    page.new_conversation()
    page.find("#session-file").send_keys(str(file))
    page.wait(lambda: page.find_all(".answer"), "the imported answers")
    assert page.answers() == answers
    assert page.find("[name=system]").get_property("value") == "Be brief."
    page.click_token(0, 1)
    assert len(page.find_all("#alternatives .bar")) == 10
    file.unlink()


def test_a_file_that_is_no_session_is_refused_in_words(page: Page, tmp_path: Path) -> None:
    file = tmp_path / "other.json"
    file.write_text('{"format": "something else"}')
    page.find("#session-file").send_keys(str(file))
    problem = page.find("#conversations-problem")
    page.wait(problem.is_displayed, "the problem")
    assert "not a session" in problem.text


def test_a_request_is_shown_as_code_that_runs(page: Page) -> None:
    page.set(temperature="0", top_k="5", max_tokens="12")
    page.prompt.send_keys('It\'s a "test" \\ with $signs and 🐉. What is the capital of France?')
    page.find(".copy-code", page.panes[0]).click()
    environment = os.environ | {"DRAGOMAN_API_KEY": "unused"}
    curl = page.find("#code").text
    answer = json.loads(_output("bash", "-c", curl, environment=environment))
    content = answer["choices"][0]["message"]["content"]

    page.find("input[value=python] + span").click()
    python = page.find("#code").text
    assert _output(sys.executable, "-c", python, environment=environment).strip() == content.strip()
    page.browser.switch_to.active_element.send_keys(Keys.ESCAPE)
    assert not page.find("#code-dialog").is_displayed()


def _output(*command: str, environment: dict[str, str]) -> str:
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return done.stdout
