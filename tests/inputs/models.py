"""The models of the inputs: random weights, and templates of ours in every notation of calls."""

from __future__ import annotations

import re
from pathlib import Path

from tests.tiny_models import write_tiny_model

_TURNS = """\
{%- if tools %}
    {{- '<|im_start|>system\\nTools: ' + (tools | tojson) + '<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' }}
    {%- if message.role == 'assistant' and message.reasoning_content %}
        {{- '<think>\\n' + message.reasoning_content + '\\n</think>\\n\\n' }}
    {%- endif %}
    {{- message.content or '' }}
    {%- for call in message.tool_calls or [] %}
        {{- '<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' }}
        {{- (call.function.arguments | tojson) + '}\\n</tool_call>' }}
    {%- endfor %}
    {{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""
THINKING = (
    _TURNS
    + """\
{%- if add_generation_prompt %}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- else %}
        {{- '<think>\\n' }}
    {%- endif %}
{%- endif %}
"""
)
# Looks for switches in texts, in three ways that published templates have.
_SWITCHES = """\
{%- set mode = namespace(think=true, text='') %}
{%- for message in messages %}
    {%- if message.role == 'system' %}
        {%- set mode.text = message.content %}
        {%- if '/no_think' in message.content %}
            {%- set mode.think = false %}
            {%- set mode.text = message.content.replace('/no_think', '') | trim %}
        {%- endif %}
    {%- elif message.role == 'user' and message.content.endswith('/nothink') %}
        {%- set mode.think = false %}
    {%- elif message.content.split(' ') | first == '!quiet' %}
        {%- set mode.think = false %}
    {%- endif %}
{%- endfor %}
{{- 'Mode: ' + ('on' if mode.think else 'off') + '. ' + mode.text + '\\n' }}
{%- for message in messages if message.role != 'system' %}
    {{- message.role + ': ' + message.content + '\\n' }}
{%- endfor %}
"""
# The others describe tools, and leave it to the format how they are called.
_SILENT = re.sub(
    r" *\{%- (?:for call.*?endfor|if message.role == 'assistant'.*?endif) %\}\n",
    "",
    _TURNS,
    flags=re.DOTALL,
)
_TAGGED = """\
call = "<tool_call>\\n<function={name}>\\n{arguments}</function>\\n</tool_call>"
argument = "<parameter={key}>\\n{value}\\n</parameter>\\n"
separator = "\\n"
dialect = "tagged"
"""
_CALLS = {
    "json": """call = '<tool_call>{"name": "{name}", "arguments": {arguments}}</tool_call>'\n""",
    "tagged": _TAGGED,
    "python": 'call = "<tool_call>{name}({arguments})</tool_call>"\ndialect = "pythonic"\n',
    "gemma": 'call = "<tool_call>call:{name}{arguments}</tool_call>"\ndialect = "gemma"\n',
}
_REPLIES = {
    **{name: f"[reply.calls]\n{calls}" for name, calls in _CALLS.items()},
    "thinker": '[reply]\nformat = "hermes"\n',
    "switches": "",
}
_TEMPLATES = {
    **dict.fromkeys(_CALLS, _SILENT),
    "thinker": THINKING,
    "switches": _SWITCHES,
}
_MARKERS = ["<|im_start|>", "<|im_end|>", "<think>", "</think>", "<tool_call>", "</tool_call>"]


def write_models(models: Path, families: Path) -> None:
    """Write the models into one folder, and the families that they have into another."""
    # A blank needs a token of its own: llguidance takes its bytes for those of the text.
    file = write_tiny_model(
        models / "json.gguf", "full attention", markers=_MARKERS, words=["\u2581"]
    )
    for name, template in _TEMPLATES.items():
        if name != "json":
            (models / f"{name}.gguf").symlink_to(file)
        (models / f"{name}.toml").write_text(f'family = "{name}"\ncontext = 4096\n')
        (families / f"{name}.jinja").write_text(template)
        (families / f"{name}.toml").write_text(
            'description = "A family of the tests."\nsource = "the tests"\n'
            f'stops = ["<|im_end|>"]\n\n{_REPLIES[name]}'
        )
