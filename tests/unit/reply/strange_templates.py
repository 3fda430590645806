"""Chat templates in styles that no built-in format knows, put together from parts.

Each part shows one habit that published templates have; none of the texts is theirs.
"""

from __future__ import annotations

from typing import NamedTuple

# How turns open and close: before the role, behind it, at the end of a turn.
TURNS = {
    "pipes": ("<|", "|>\n", "<|end|>\n"),
    "brackets": ("[", "]", "[end]"),
    "header": ("<|turn>", "\n", "<turn|>\n"),
    "hash": ("### ", ":\n", "\n\n"),
    "at": ("@@", "@@ ", "\n@@@\n"),
    "tags": ("<role:", ">", "</turn>"),
}

# Reasoning: the text before and behind it in a past turn, and what the generation prompt opens.
REASONING = {
    "none": ("", "", ""),
    "tags": ("<reflect>", "</reflect>", ""),
    "lines": ("<reflect>\n", "\n</reflect>\n\n", ""),
    "pipes": ("<|reason|>", "<|/reason|>", ""),
    "brackets": ("[REASON]", "[/REASON]\n", ""),
    "opened": ("<reflect>\n", "\n</reflect>\n\n", "<reflect>\n"),
    "known": ("<think>\n", "\n</think>\n\n", ""),
}

# Calls: the section's begin, a call (c.name, c.arguments), what separates, the section's end.
CALLS = {
    "json": ("", '<run>{"name": "{{ c.name }}", "arguments": {{ A }}}</run>', "\n", ""),
    "keys": ("", '<run>\n{"tool": "{{ c.name }}", "args": {{ A }}}\n</run>', "\n", ""),
    "array": ("<runs>[", '{"name": "{{ c.name }}", "arguments": {{ A }}}', ", ", "]</runs>"),
    "lines": ("<runs>\n", '{"name": "{{ c.name }}", "parameters": {{ A }}}', "\n", "\n</runs>"),
    "name first": ("", "<<{{ c.name }}>>{{ A }}<<done>>", "", ""),
    "attribute": ("", '<use tool="{{ c.name }}">{{ A }}</use>', "\n", ""),
    "brackets": ("", "[RUN]{{ c.name }}[WITH]{{ A }}[/RUN]", "", ""),
    "section": ("<|runs|>", "<|run|>{{ c.name }}<|with|>{{ A }}<|/run|>", "", "<|/runs|>"),
    "fence": ("", "<run>{{ c.name }}\n```json\n{{ A }}\n```</run>", "\n", ""),
    "single": ("<run>", '{"name": "{{ c.name }}", "arguments": {{ A }}}', None, "</run>"),
}

_VALUE = "{{ v if v is string else v | tojson }}"
_CDATA = "{% if '<' in v | string %}<![CDATA[{{ v }}]]>{% else %}" + _VALUE + "{% endif %}"
# One argument of tagged calls.
ARGUMENTS = {
    "tags": ('<arg name="{{ k }}">' + _VALUE + "</arg>\n"),
    "lines": ("<arg={{ k }}>\n" + _VALUE + "\n</arg>\n"),
    "pairs": ("<key>{{ k }}</key><val>" + _VALUE + "</val>"),
    "cdata": ('<arg name="{{ k }}"><![CDATA[' + _VALUE + "]]></arg>\n"),
    "cdata at need": ('<arg name="{{ k }}">' + _CDATA + "</arg>\n"),
    "brackets": ("[arg={{ k }}]" + _VALUE + "[/arg]"),
}
TAGGED = {
    "tags": ("", '<use tool="{{ c.name }}">\n', "</use>", "\n", ""),
    "section": ("<uses>\n", '<use tool="{{ c.name }}">\n', "</use>", "\n", "\n</uses>"),
    "brackets": ("", "[use={{ c.name }}]", "[/use]", "", ""),
}


class Style(NamedTuple):
    """Keys of the tables above; ``arguments`` only where calls are tagged."""

    turn: str
    reasoning: str
    calls: str
    arguments: str = ""


STYLES = [
    Style("pipes", "none", "json"),
    Style("pipes", "tags", "keys"),
    Style("brackets", "brackets", "array"),
    Style("header", "pipes", "lines"),
    Style("hash", "none", "name first"),
    Style("at", "lines", "attribute"),
    Style("tags", "opened", "brackets"),
    Style("pipes", "opened", "section"),
    Style("header", "known", "fence"),
    Style("brackets", "none", "single"),
    Style("pipes", "pipes", "name first"),
    Style("tags", "tags", "json"),
    Style("header", "lines", "array"),
    Style("at", "none", "section"),
    Style("hash", "tags", "attribute"),
    Style("pipes", "brackets", "brackets"),
    Style("brackets", "opened", "keys"),
    Style("tags", "known", "lines"),
    Style("pipes", "none", "tags", "tags"),
    Style("header", "tags", "tags", "lines"),
    Style("at", "lines", "section", "tags"),
    Style("brackets", "none", "brackets", "brackets"),
    Style("tags", "pipes", "tags", "pairs"),
    Style("pipes", "opened", "section", "cdata"),
    Style("header", "none", "tags", "cdata at need"),
    Style("hash", "brackets", "section", "lines"),
    Style("at", "opened", "tags", "tags"),
    Style("brackets", "known", "section", "pairs"),
    Style("tags", "none", "section", "cdata at need"),
    Style("header", "opened", "array"),
    Style("hash", "opened", "lines"),
    Style("at", "pipes", "fence"),
]


def source(style: Style) -> str:
    """The template of ``style``."""
    before, behind, end = TURNS[style.turn]
    think, thought, opened = REASONING[style.reasoning]
    reasoning = ""
    if think:
        reasoning = (
            "{%- if m.reasoning_content %}{{ "
            f"{think!r} + m.reasoning_content + {thought!r}"
            " }}{% endif %}"
        )
    return "".join(
        (
            "{%- if tools %}",
            f"{{{{ {before + 'tools' + behind!r} + (tools | tojson) + {end!r} }}}}{{% endif %}}",
            "{%- for m in messages %}",
            f"{{{{ {before!r} + m.role + {behind!r} }}}}",
            reasoning,
            "{{- m.content or '' }}",
            "{%- if m.tool_calls %}" + _calls(style) + "{% endif %}",
            f"{{{{ {end!r} }}}}" + "{%- endfor %}",
            "{%- if add_generation_prompt %}",
            f"{{{{ {before + 'assistant' + behind + opened!r} }}}}{{% endif %}}",
        )
    )


def _calls(style: Style) -> str:
    if style.arguments:
        begin, opening, closing, separator, end = TAGGED[style.calls]
        each = _printed(ARGUMENTS[style.arguments])
        call = (
            _printed(opening)
            + "{%- for k, v in c.arguments.items() %}"
            + each
            + "{%- endfor %}"
            + _printed(closing)
        )
    else:
        begin, pattern, one, end = CALLS[style.calls]
        separator = one or ""
        call = _printed(pattern.replace("{{ A }}", "{{ c.arguments | tojson }}"))
    return (
        f"{{{{ {begin!r} }}}}"
        "{%- for t in m.tool_calls %}{%- set c = t.function %}"
        f"{{%- if not loop.first %}}{{{{ {separator!r} }}}}{{% endif %}}"
        f"{call}{{%- endfor %}}{{{{ {end!r} }}}}"
    )


def _printed(pattern: str) -> str:
    """A pattern whose white space survives the template's own."""
    return pattern.replace("\n", "{{ '\\n' }}")
