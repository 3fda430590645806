"""Levels of effort that a template does not know."""

from __future__ import annotations

from typing import Any

import pytest

from server.core.request import ChatPrompt
from server.prompt.known_template import KnownTemplate
from server.prompt.messages.efforts import LEVELS, Efforts
from server.prompt.messages.normalize import effective_variables
from server.prompt.template.chat_template import ChatTemplate
from tests.unit.prompt.conversations import user
from tests.unit.prompt.corpus import TEMPLATES, each_template, template

PRINTING = "Reasoning: {{ reasoning_effort | default('medium') }} {{ messages[0].content }}"
KNOWING = (
    "{% if reasoning_effort == 'high' %}H{% elif reasoning_effort == 'max' %}M{% endif %}"
    "{{ messages[0].content }}"
)
REFUSING = (
    "{% if reasoning_effort is defined and reasoning_effort not in ['none', 'high'] %}"
    "{{ raise_exception('unknown') }}{% endif %}{{ messages[0].content }}"
)
SWITCH = "{% if enable_thinking %}<think>{% endif %}"


def applied(source: str, **variables: Any) -> dict[str, Any]:
    return Efforts.of(ChatTemplate(source)).applied(variables)


@pytest.mark.parametrize(
    ("source", "levels"),
    [
        (PRINTING, ["low", "low", "low", "medium", "high", "high", "high"]),
        (KNOWING, [None, None, None, None, "high", "high", "max"]),
        (REFUSING, ["none", "high", "high", "high", "high", "high", "high"]),
        ("{{ messages[0].content }}", [None] * 7),
    ],
    ids=["printing", "knowing", "refusing", "none"],
)
def test_a_level_becomes_the_nearest_known_one(source: str, levels: list[str | None]) -> None:
    found = [applied(source, reasoning_effort=level) for level in LEVELS]
    assert found == [{"reasoning_effort": level} if level else {} for level in levels]


def test_no_effort_switches_thoughts_off_and_any_other_on() -> None:
    assert applied(SWITCH + PRINTING, reasoning_effort="none") == {"enable_thinking": False}
    assert applied(SWITCH + PRINTING, reasoning_effort="max") == {
        "enable_thinking": True,
        "reasoning_effort": "high",
    }


@pytest.mark.parametrize("name", ["enable_thinking", "thinking"])
def test_the_requests_own_switch_stays(name: str) -> None:
    source = SWITCH.replace("enable_thinking", name) + PRINTING
    assert applied(source, reasoning_effort="high", **{name: False})[name] is False


def test_a_level_of_the_templates_own_is_passed_on() -> None:
    assert applied(PRINTING, reasoning_effort="ultra") == {"reasoning_effort": "ultra"}


def test_an_effort_counts_as_known_where_it_sets_the_switch() -> None:
    assert "reasoning_effort" in effective_variables(ChatTemplate(SWITCH))
    assert "reasoning_effort" not in effective_variables(ChatTemplate("{{ messages }}"))


@each_template
def test_no_published_template_prints_a_level_that_its_model_does_not_know(name: str) -> None:
    known = KnownTemplate.learn(template(name), None)
    for level in ("none", "minimal", "xhigh", "max"):
        prompt = ChatPrompt(messages=[user("x")], template_kwargs={"reasoning_effort": level})
        assert f"easoning: {level}" not in known.text(prompt)


@pytest.mark.skipif("openai-gpt-oss-120b" not in TEMPLATES, reason="the corpus is not here")
def test_gpt_oss_gets_its_lowest_level_for_none() -> None:
    known = KnownTemplate.learn(template("openai-gpt-oss-120b"), None)
    prompt = ChatPrompt(messages=[user("x")], template_kwargs={"reasoning_effort": "none"})
    assert "Reasoning: low" in known.text(prompt)
