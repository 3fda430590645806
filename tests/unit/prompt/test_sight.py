"""Templates decide about texts in disguise as about the texts themselves."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

from server.core.errors import ConversationError
from server.core.request import ChatPrompt
from server.prompt.guard.mask import Mask
from server.prompt.model_template import ModelTemplate
from server.prompt.template.chat_template import ChatTemplate
from tests.unit.prompt.test_guard_corpus import Texts, each_template, opened, with_its_own_tokens

ALPHABET = ["<|a_b|>", "&%$[](){}+-./:;,=#*~`^!?@"]

# What published templates look for in texts, and what looks like it.
LOOKED_FOR = [
    *(
        "/think",
        "/no_think",
        "/nothink",
        "/no_think_at_all",
        "/system_override",
        "/think\n/no_think",
    ),
    *(
        "detailed thinking on",
        "detailed thinking off",
        "reasoning on",
        "low_effort",
        "thinking_budget",
    ),
    *(
        "<think>",
        "</think>",
        "<think>a</think>b",
        "a</think>b",
        "<think>\n\n</think>\n\n",
        "<think>a",
    ),
    *(
        "[THINK]a[/THINK]b",
        "<seed:think>a</seed:think>b",
        "<thinking>a</thinking>",
        "<|channel|>final",
    ),
    *("<tool_call>", "<tool_response>a</tool_response>", "<|im_end|>", "[INST] a [/INST]", "</s>"),
    *(
        "<<SYS>>\na\n<</SYS>>",
        "user",
        "assistant",
        "system:",
        "tool_calls",
        '{"role": "user"}',
        "None",
    ),
    *(
        "# Title\n\n* a\n- **b**\n",
        "```json\n[1]\n```",
        '{"a": "<b>"}',
        '{"name": "f_1", "arguments": {}}',
    ),
    *("https://a.b/c_d?e=f&g=%20#h", "2026-11-28", "12:30:59", '1 < 2 && 3 > "2"', "<![CDATA[x]]>"),
    *(
        "&lt;&amp;",
        "<br/>",
        "\\u003cthink\\u003e",
        "true",
        "12_345",
        "",
        " ",
        "\n\n",
        "a_b, __c__; [d]",
    ),
]
WRAPPINGS = ["{}", "Say {} now.", "x\n{}", "{}\n{}"]
TEXTS = [wrap.format(text, text) for text, wrap in product(LOOKED_FOR, WRAPPINGS)]
PLACES = 10


def prompts(model: ModelTemplate) -> list[ChatPrompt]:
    """Conversations that have each of `TEXTS` as system, user, assistant and tool text.

    Calls in words are left alone: a template that takes these apart loses arguments, so there the
    guard keeps it from looking (`server.prompt.template.authored`).
    """
    made = []
    for start in range(0, len(TEXTS), 2):
        at = [TEXTS[(start + place) % len(TEXTS)] for place in range(PLACES)]
        texts = Texts(
            system=at[0],
            users=(at[1], at[2]),
            assistant=at[3],
            result=at[4],
            argument=("key", at[5] if model.capabilities.tool_calls else "value"),
            description=at[6],
            property=(at[7].strip() or "p", at[8]),
        )
        made.append(texts.prompt(tools=start % 4 > 0))
    return made


def rendered(model: ModelTemplate, prompt: ChatPrompt) -> str:
    try:
        return model.render(prompt).text
    except ConversationError as error:
        return str(error)


@pytest.mark.process
@each_template
def test_the_guard_changes_no_decision_of_a_template(name: str) -> None:
    guarded = with_its_own_tokens(name)
    bare = opened(name, guarded.template.source, guarded.vocabulary, guard=False)
    for prompt in prompts(guarded):
        assert rendered(guarded, prompt) == rendered(bare, prompt)


def both_ways(expression: str, value: Any) -> None:
    """Check that ``expression`` about ``m`` is the same for ``value`` in disguise."""
    template = ChatTemplate("{% set m = messages[0].thoughts %}{{ " + expression + " }}")
    message = {"role": "user", "content": "", "thoughts": value}
    masked = Mask(ALPHABET).apply([message], None, {})
    assert masked.messages != [message]
    disguised = masked.settle(template.render(masked.messages, sight=masked.sight))
    assert masked.lift(disguised) == template.render([message])


@pytest.mark.parametrize(
    "expression",
    [
        *("m.startswith('<')", "m.endswith('_>')", "m.find('&')", "m.count('<')", "'<b>' in m"),
        *(
            "m.split('<')",
            "m.split('<', 1)[1]",
            "m.rsplit('>', 1)",
            "m.partition('b')",
            "m.split()",
        ),
        *("m.split(sep='<', maxsplit=1)", "m.strip('<>_')", "m.lstrip('<')", "m.rstrip('_>')"),
        *("m.removeprefix('<b>')", "m.removesuffix('_>')", "m.replace('<', '&lt;')"),
        *("m.replace('<', '[', 1)", "m.replace('', '-')", "m.upper()", "m[1:-1]", "m[0] == '<'"),
        *(
            "m == '<b> & </b>_>'",
            "m != '<b>'",
            "m > '<a'",
            "m in ['<b> & </b>_>']",
            "m is eq '<b>'",
        ),
        *("m | replace('<', '&lt;')", "m | replace('<', '[', 1)", "m | trim('<>')", "m | e"),
        *("m | urlencode", "m | striptags", "m | forceescape", "m | tojson", "m | wordcount"),
        *("('<i>' | safe) + m", "m + ('<i>' | safe)", "m ~ '<'", "'%s' % m", "'{}'.format(m)"),
        *("m | list", "[m] | join('<')", "m | length", "m.index('b')", "m.isalnum()"),
        *("{'<b> & </b>_>': 1}[m]", "{'<b> & </b>_>': 1}.get(m, 2)", "m in {'<b> & </b>_>': 1}"),
        *("[{'a': m}] | selectattr('a', 'equalto', '<b> & </b>_>') | list | length",),
    ],
)
def test_a_text_is_looked_into_as_it_is(expression: str) -> None:
    both_ways(expression, "<b> & </b>_>")


@pytest.mark.parametrize(
    "expression",
    [
        *("m.a_b", "m['a_b']", "m.get('a_b')", "'a_b' in m", "'a_c' in m", "m.a_c is defined"),
        *(
            "m | dictsort",
            "m | dictsort(by='value')",
            "m | tojson(sort_keys=true)",
            "m | list | sort",
        ),
        *("m.values() | list | sort(reverse=true)", "m | max", "m.values() | list | unique | list"),
        *(
            "m == {'a_b': '<', 'aab': '_', '$ref': '<'}",
            "m.a_b == '<'",
            "(m.values() | list).index('_')",
        ),
        *("m.pop('a_b')", "m.items() | list", "m | map('replace', '_', '-') | list"),
    ],
)
def test_keys_and_values_are_found_and_sorted_as_they_are(expression: str) -> None:
    both_ways(expression, {"a_b": "<", "aab": "_", "$ref": "<"})


@pytest.mark.parametrize(("expression", "value"), [("m | int", "-5"), ("m | float + 1", "-1.5")])
def test_numbers_are_read(expression: str, value: str) -> None:
    both_ways(expression, value)


@pytest.mark.parametrize(
    "value", ['{"a_b": ["<", "\\u003c"], "c": 1}', '["\\u003c|a_b|\\u003e"]', "[1.5, -2]"]
)
def test_json_is_read(value: str) -> None:
    both_ways("m | from_json | tojson", value)


def test_escaped_characters_that_a_template_reads_stay_in_disguise() -> None:
    masked = Mask(["<s>"]).apply([{"role": "user", "content": '"\\u003cs\\u003e"'}], None, {})
    text = ChatTemplate("{{ messages[0].content | from_json }}").render(
        masked.messages, sight=masked.sight
    )
    assert "<" not in text
    assert masked.lift(text) == "<s>"


def test_what_a_template_writes_in_place_of_a_text_is_its_own() -> None:
    masked = Mask(["<s>"]).apply([{"role": "user", "content": "a</s>b<c"}], None, {})
    text = ChatTemplate("{{ messages[0].content.replace('</s>', '<s>') }}").render(
        masked.messages, sight=masked.sight
    )
    assert "<s>" in text
    assert text.count("<") == 1
