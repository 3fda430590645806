"""Tools as templates take them, and in words for those that do not."""

from enum import Enum
from functools import cache
from typing import Any

import pytest
from pydantic import BaseModel

from server.core.request import ChatPrompt, Tool
from server.prompt.known_template import KnownTemplate
from server.prompt.messages.capabilities import Capabilities
from server.prompt.messages.normalize import normalize
from server.prompt.template.chat_template import ChatTemplate
from tests.unit.prompt.conversations import WEATHER, user
from tests.unit.prompt.corpus import TEMPLATES, each_template, template


class _Unit(Enum):
    CELSIUS = "celsius"
    KELVIN = "kelvin"


class _Place(BaseModel):
    city: str
    aliases: list[str] = []


class _Forecast(BaseModel):
    place: _Place
    unit: _Unit
    days: int | None = None


LISTED_TYPES = {
    "type": "object",
    "properties": {
        "place": {"type": ["string", "null"]},
        "unit": {"type": "array", "items": {"type": ["integer", "string"]}},
        "days": {"enum": [1, "all"]},
    },
}
"""A legal schema on which two templates recurse without end, so they get it in words."""


@cache
def known(name: str) -> KnownTemplate:
    return KnownTemplate.learn(template(name), None)


def test_the_example_of_a_call_ends_with_its_whole_marker() -> None:
    name = "deepseek-ai-DeepSeek-R1-Distill-Llama-8B"
    if name not in TEMPLATES:
        pytest.skip("needs ../shared/corpus/templates")
    text = known(name).text(ChatPrompt(messages=[user("a")], tools=[WEATHER]))
    example = text.partition("write exactly:\n")[2]
    assert example.startswith("<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function")
    assert '{"KEY": "VALUE"}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>' in example


def test_parameters_get_the_fields_that_a_template_needs() -> None:
    def native(parameters: dict[str, Any], *, lacking: bool) -> Any:
        tool = Tool(name="f", description="d", parameters=parameters)
        prompt = ChatPrompt(messages=[user("a")], tools=[tool])
        capabilities = Capabilities(tools=True, bare_tools=True, bare_parameters=not lacking)
        [described] = normalize(prompt, capabilities).tools or []
        return described["function"]["parameters"]

    key = {"type": "object", "properties": {"k": {"type": "string"}, "any": True}}
    assert native(key, lacking=False) == key
    assert native(key, lacking=True)["properties"] == {
        "k": {"description": "", "type": "string"},
        "any": True,
    }
    assert native({"type": "object"}, lacking=True) == {"type": "object", "properties": {}}
    assert native({"anyOf": [key]}, lacking=True) == {"anyOf": [key]}


@each_template
@pytest.mark.parametrize(
    "parameters",
    [
        pytest.param(_Forecast.model_json_schema(), id="pydantic"),
        pytest.param(LISTED_TYPES, id="lists of types"),
        pytest.param({"type": "object"}, id="no properties"),
        pytest.param({"anyOf": [_Forecast.model_json_schema()]}, id="branches"),
    ],
)
def test_no_template_refuses_an_ordinary_tool(name: str, parameters: dict[str, Any]) -> None:
    tool = Tool(name="toolforecast", description="tooldescription", parameters=parameters)
    prompt = ChatPrompt(messages=[user("usertext")], tools=[tool])
    text = known(name).text(prompt)
    wanted = {"toolforecast", "tooldescription", "usertext", *parameters.get("properties", {})}
    assert {needle for needle in wanted if needle not in text} == set()


def test_tools_a_template_fails_on_are_described_in_words() -> None:
    picky = ChatTemplate(
        "{% for t in tools or [] %}{{ t.function | tojson }}"
        "{% if t.function.parameters.properties.values() | selectattr('enum', 'defined') | list %}"
        "{{ raise_exception('no enums') }}{% endif %}{% endfor %}"
        "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}"
    )
    tool = Tool(name="f", parameters={"properties": {"k": {"enum": ["a"]}}})
    chat = KnownTemplate.learn(picky, None).fit(ChatPrompt(messages=[user("a")], tools=[tool]))
    assert chat.tools is None
    assert '"enum":["a"]' in chat.messages[0]["content"]
