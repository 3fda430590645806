import copy
import os
from typing import Any

import pytest

from server.core.errors import ConversationError
from server.prompt.template.chat_template import ChatTemplate, select_template, templates_in
from tests.unit.prompt.corpus import BOS, EOS, TEMPLATES, each_template, template

USER = {"role": "user", "content": "Hello"}


def _call(name: str, id_: str, arguments: Any) -> dict[str, Any]:
    return {"id": id_, "type": "function", "function": {"name": name, "arguments": arguments}}


def _calling(*calls: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": "", "tool_calls": list(calls), **fields}


def _result(text: str, id_: str = "abcdefgh1") -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": id_, "name": "get_weather", "content": text}


def _assistant(text: str, **fields: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **fields}


ROME = {"city": "Rome <b> & ü"}
QUESTION = {"role": "user", "content": "Weather in Rome?"}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "The weather now.",
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string", "description": "City 'name' <x>"},
                    "days": {"type": "integer", "description": "How many"},
                    "unit": {"type": "string", "enum": ["C", "F"], "description": "C or F"},
                },
                "required": ["city"],
            },
        },
    },
    {
        "type": "function",
        "function": {
            "name": "now",
            "description": "",
            "parameters": {"type": "object", "properties": {}},
        },
    },
]
CONVERSATIONS: dict[str, list[dict[str, Any]]] = {
    "plain": [{"role": "user", "content": " Hi ü <b> & 'q' "}],
    "system": [{"role": "system", "content": "Be brief."}, USER],
    "turns": [
        *({"role": "system", "content": " Sys\n"}, USER, _assistant("Hi! ")),
        *(
            {"role": "user", "content": "More"},
            _assistant("Fine"),
            {"role": "user", "content": "?"},
        ),
    ],
    "no system": [USER, _assistant("Hi!"), {"role": "user", "content": "More"}],
    "call": [QUESTION, _calling(_call("get_weather", "abcdefgh1", ROME)), _result('{"t": 20}')],
    "call without content": [
        *(QUESTION, _calling(_call("get_weather", "abcdefgh1", ROME), content=None)),
        *(_result("20"), _assistant("20 degrees"), USER),
    ],
    "call with text": [
        *(QUESTION, _calling(_call("get_weather", "abcdefgh1", ROME), content="Let me look.")),
        _result("20"),
    ],
    "arguments as text": [
        *(QUESTION, _calling(_call("get_weather", "abcdefgh1", '{"city":"Rome"}'))),
        _result("20"),
    ],
    "parallel calls": [
        QUESTION,
        _calling(_call("get_weather", "abcdefgh1", ROME), _call("now", "abcdefgh2", {})),
        *(_result("20"), _result("noon", "abcdefgh2")),
    ],
    "reasoning": [
        *(QUESTION, _assistant("Warm.", reasoning_content="Rome is warm.")),
        *(USER, _assistant("Hi!", reasoning_content="Greet.")),
    ],
    "reasoning and call": [
        QUESTION,
        _calling(_call("get_weather", "abcdefgh1", ROME), reasoning_content="Look it up."),
        _result("20"),
    ],
    "parts": [{"role": "user", "content": [{"type": "text", "text": "A"}]}],
}
OPEN_ANSWERS = {
    "continue": [QUESTION, _assistant("It is")],
    "continue after a space": [QUESTION, _assistant("It is ")],
    "continue after turns": [QUESTION, _assistant("Warm."), USER, _assistant("Well,\n")],
}


def _as_transformers(name: str, messages: list[dict[str, Any]], **options: Any) -> str | None:
    """The prompt that Hugging Face transformers renders; None if it fails."""
    os.environ["TRANSFORMERS_VERBOSITY"] = "error"
    reference = pytest.importorskip("transformers.utils.chat_template_utils")
    try:
        prompts, _ = reference.render_jinja_template(
            [copy.deepcopy(messages)],
            chat_template=template(name).source,
            bos_token=BOS,
            eos_token=EOS,
            **options,
        )
    except Exception:
        return None
    prompt: str = prompts[0]
    return prompt


@each_template
def test_prompts_equal_those_of_transformers(name: str) -> None:
    compared = 0
    for title, messages in CONVERSATIONS.items():
        for tools in (None, TOOLS):
            for generation in (True, False):
                options: dict[str, Any] = {"tools": tools, "add_generation_prompt": generation}
                expected = _as_transformers(name, messages, **options)
                if expected is not None:
                    assert template(name).render(messages, **options) == expected, (title, options)
                    compared += 1
    # Firefunction's template needs variables that transformers does not give.
    assert compared > 0 or "firefunction" in name


@each_template
def test_continued_messages_equal_those_of_transformers(name: str) -> None:
    compared = 0
    for title, messages in OPEN_ANSWERS.items():
        for tools in (None, TOOLS):
            options: dict[str, Any] = {"tools": tools, "continue_final_message": True}
            expected = _as_transformers(name, messages, **options)
            if expected is not None:
                prompt = template(name).render(messages, **options)
                assert prompt == expected, title
                assert prompt.rstrip().endswith(messages[-1]["content"].strip())
                compared += 1
    # Firefunction's template needs variables that transformers does not give.
    assert compared > 0 or "firefunction" in name


def test_switches_equal_those_of_transformers() -> None:
    name = "Qwen-Qwen3-0.6B"
    if name not in TEMPLATES:
        pytest.skip("needs ../shared/corpus/templates")
    expected = _as_transformers(name, [USER], add_generation_prompt=True, enable_thinking=False)
    assert template(name).render([USER], variables={"enable_thinking": False}) == expected


def test_input_stays_unchanged_though_a_template_may_change_its_lists() -> None:
    greedy = ChatTemplate(
        "{% set _ = messages.append(1) %}{% set _ = tools.pop() %}{{ messages|length }}"
    )
    messages, tools = [USER], copy.deepcopy(TOOLS)
    assert greedy.render(messages, tools=tools) == "2"
    assert (messages, tools) == ([USER], TOOLS)


@pytest.mark.parametrize("tools", [None, []])
def test_without_tools_the_variable_is_undefined(tools: list[dict[str, Any]] | None) -> None:
    asking = ChatTemplate("{{ tools is defined }}{{ documents is defined }}")
    assert asking.render([USER], tools=tools) == "FalseFalse"


def test_json_is_plain_and_takes_generators_and_undefined_values() -> None:
    source = (
        "{{ {'b': '<ü>', 'a': 1} | tojson }} {{ messages | map(attribute='role') | tojson }}"
        " {{ nothing | tojson }} {{ {'b': 1, 'a': [2]} | tojson(indent=1, sort_keys=true) }}"
        " {{ ('[1, 2]' | from_json)[1] }}"
    )
    assert ChatTemplate(source).render([USER]) == (
        '{"b": "<ü>", "a": 1} ["user"] null {\n "a": [\n  2\n ],\n "b": 1\n} 2'
    )


def test_generation_blocks_are_their_own_content() -> None:
    source = (
        "{% for m in messages %}{% generation %}[{{ m.content }}]{% endgeneration %}{% endfor %}"
    )
    assert ChatTemplate(source).render([USER, USER]) == "[Hello][Hello]"


def test_firefunction_gets_its_functions_and_the_time() -> None:
    prompt = ChatTemplate("{{ functions }}|{{ datetime }}").render([USER], tools=TOOLS)
    functions, _, time = prompt.partition("|")
    assert '"name": "get_weather"' in functions
    assert len(time) == len("2024-01-01 00:00:00")


def test_a_refusal_is_an_error_with_the_template_s_own_words() -> None:
    refusing = ChatTemplate("{{ raise_exception('Only cats may speak!') }}")
    with pytest.raises(ConversationError, match=r"refuses this conversation: Only cats may speak!"):
        refusing.render([USER])


@pytest.mark.parametrize(
    "source",
    [
        "{{ 1 + 'a' }}",
        "{{ nothing.name }}",
        "{{ 1 / 0 }}",
        "{{ [].__class__.name }}",
        "{{ [] | sum(start=[]) }}",
    ],
)
def test_a_failing_template_is_an_error_of_the_conversation(source: str) -> None:
    with pytest.raises(ConversationError, match="fails on this conversation"):
        ChatTemplate(source).render([USER])


@pytest.mark.parametrize("source", ["{% if %}", "{{ a", "{% endfor %}", "{{ a | nothing }}"])
def test_a_template_that_does_not_compile_says_where(source: str) -> None:
    with pytest.raises(ConversationError, match=r"'tool_use' is not valid: line 1: "):
        ChatTemplate(source, name="tool_use")


def test_a_message_without_text_cannot_be_continued() -> None:
    writing = ChatTemplate("{{ messages[-1].content }}")
    for last in ({"role": "assistant"}, {"role": "assistant", "content": None}):
        with pytest.raises(ConversationError, match="no text to continue"):
            writing.render([USER, last], continue_final_message=True)


def test_a_message_the_template_drops_cannot_be_continued() -> None:
    with pytest.raises(ConversationError, match=r"messages\[1\] cannot be continued"):
        ChatTemplate("x").render([USER, _assistant("A")], continue_final_message=True)


def test_parts_can_be_continued() -> None:
    source = "{% for m in messages %}{% for p in m.content %}({{ p.text }}){% endfor %}{% endfor %}"
    content = [{"type": "text", "text": "A"}, {"type": "text", "text": "B"}]
    message = {"role": "assistant", "content": content}
    assert ChatTemplate(source).render([message], continue_final_message=True) == "(A)(B"


def test_variables_are_those_a_request_may_set() -> None:
    source = (
        "{% set loop_messages = messages %}{% if tools %}{% set note = 'a' %}{% endif %}{{ note }}"
        "{% if not date is defined %}{% set date = '1' %}{% endif %}{{ date }}"
        "{% set mood = mood | default('good') %}{{ mood }}{{ enable_thinking }}{{ bos_token }}"
        "{{ custom_tools }}{{ range(1) }}{{ raise_exception }}{{ add_generation_prompt }}"
        "{% for m in loop_messages %}{{ m.kind }}{{ loop.index }}{% endfor %}{{ pad_token }}"
    )
    assert ChatTemplate(source).variables == {"date", "mood", "enable_thinking"}


def test_templates_have_their_source_and_its_hash() -> None:
    empty = ChatTemplate("")
    assert (empty.source, empty.name) == ("", "default")
    assert empty.sha256 == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_a_file_s_templates_are_found_by_name() -> None:
    metadata = {
        "tokenizer.chat_template": "A",
        "tokenizer.chat_template.tool_use": "B",
        "tokenizer.chat_template.rag": " ",
        "tokenizer.chat_templates": "tool_use",
        "tokenizer.ggml.model": "gpt2",
    }
    assert templates_in(metadata) == {"default": "A", "tool_use": "B"}


@pytest.mark.parametrize(
    ("names", "tools", "selected"),
    [
        ("default tool_use rag", False, "default"),
        ("default tool_use rag", True, "tool_use"),
        ("default", True, "default"),
        ("tool_use chatml alpaca", False, "alpaca"),
        ("tool_use", False, "tool_use"),
    ],
)
def test_a_conversation_with_tools_selects_the_template_for_them(
    names: str, tools: bool, selected: str
) -> None:
    choices = dict.fromkeys(names.split())
    assert select_template(choices, tools=tools) == selected


def test_no_template_is_an_error() -> None:
    with pytest.raises(ConversationError, match="no chat template"):
        select_template({}, tools=False)
