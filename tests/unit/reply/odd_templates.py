"""Chat templates with habits that mislead a comparison of renders, each written for its habit."""

from __future__ import annotations

_TOOLS = "{% if tools %}<|tools|>{{ tools | tojson }}<|end|>{% endif %}"
_PROMPT = "{% if add_generation_prompt %}<|assistant|>{% endif %}"
_JSON_CALLS = (
    "{% for t in m.tool_calls or [] %}<run>"
    '{"name": "{{ t.function.name }}", "arguments": {{ t.function.arguments | tojson }}}'
    "</run>{% endfor %}"
)


def _template(turn: str, prompt: str = _PROMPT) -> str:
    """Turns are written by ``turn``, the assistant's; others are the same everywhere."""
    return (
        f"{_TOOLS}{{% for m in messages %}}{{% if m.role == 'assistant' %}}{turn}"
        "{% else %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endif %}{% endfor %}" + prompt
    )


ODD = {
    "reasoning without a start": _template(
        "<|assistant|>{% if m.reasoning_content %}{{ m.reasoning_content }}<|so|>{% endif %}"
        "{{ m.content or '' }}" + _JSON_CALLS + "<|end|>"
    ),
    "a start that every answer has": _template(
        "<|assistant|><|say|>{% if m.reasoning_content %}{{ m.reasoning_content }}<|so|>{% endif %}"
        "{{ m.content or '' }}" + _JSON_CALLS + "<|end|>",
        "{% if add_generation_prompt %}<|assistant|><|say|>{% endif %}",
    ),
    "an empty block for no reasoning": _template(
        "<|assistant|><muse>{{ m.reasoning_content or '' }}</muse>{{ m.content or '' }}"
        + _JSON_CALLS
        + "<|end|>"
    ),
    "framed answers": _template(
        "<|assistant|>{% if m.reasoning_content %}<muse>{{ m.reasoning_content }}</muse>{% endif %}"
        "{% if m.content %}<answer>{{ m.content }}</answer>{% endif %}" + _JSON_CALLS + "<|end|>"
    ),
    "reasoning under another key": _template(
        "<|assistant|>{% if m.thinking %}<muse>{{ m.thinking }}</muse>{% endif %}"
        "{{ m.content or '' }}" + _JSON_CALLS + "<|end|>"
    ),
    "reasoning that past turns lose": _template(
        "<|assistant|>{{ (m.content or '').split('</muse>')[-1] }}" + _JSON_CALLS + "<|end|>",
        "{% if add_generation_prompt %}<|assistant|><muse>\n{% endif %}",
    ),
    "escaped values": _template(
        "<|assistant|>{{ m.content or '' }}{% for t in m.tool_calls or [] %}"
        '<use tool="{{ t.function.name }}">{% for k, v in t.function.arguments.items() %}'
        '<arg name="{{ k }}">{{ (v if v is string else v | tojson) | e }}</arg>{% endfor %}</use>'
        "{% endfor %}<|end|>"
    ),
    "arguments as text": _template(
        "<|assistant|>{{ m.content or '' }}{% for t in m.tool_calls or [] %}<run>"
        '{"name": "{{ t.function.name }}", "arguments": '
        "{{ t.function.arguments | tojson | tojson }}}</run>{% endfor %}<|end|>"
    ),
    "arguments over lines": _template(
        "<|assistant|>{{ m.content or '' }}{% for t in m.tool_calls or [] %}<run>"
        '{"name": "{{ t.function.name }}", "arguments": '
        "{{ t.function.arguments | tojson(indent=2) }}}</run>{% endfor %}<|end|>"
    ),
    "OpenAI's objects": _template(
        "<|assistant|>{{ m.content or '' }}{% for t in m.tool_calls or [] %}<run>"
        '{"type": "function", "function": {"name": "{{ t.function.name }}", "arguments": '
        "{{ t.function.arguments | tojson }}}}</run>{% endfor %}<|end|>"
    ),
    "arguments before the name": _template(
        "<|assistant|>{{ m.content or '' }}{% for t in m.tool_calls or [] %}<run>"
        '{"arguments": {{ t.function.arguments | tojson }}, "name": "{{ t.function.name }}"}'
        "</run>{% endfor %}<|end|>"
    ),
    "Python": _template(
        "<|assistant|>{{ m.content or '' }}{% if m.tool_calls %}<run>"
        "{% for t in m.tool_calls %}{{ t.function.name }}("
        "{% for k, v in t.function.arguments.items() %}{{ k }}={{ v | tojson }}"
        "{% if not loop.last %}, {% endif %}{% endfor %}){% if not loop.last %}; {% endif %}"
        "{% endfor %}</run>{% endif %}<|end|>"
    ),
    "words": _template(
        "<|assistant|>{{ m.content or '' }}{% for t in m.tool_calls or [] %}\n"
        "I call {{ t.function.name }}{% for k, v in t.function.arguments.items() %}, "
        "{{ k }} being {{ v }}{% endfor %}.{% endfor %}<|end|>"
    ),
    "calls in turns of their own": _template(
        "{% if m.content %}<|assistant|>{{ m.content }}<|end|>{% endif %}"
        "{% for t in m.tool_calls or [] %}<|call|>"
        '{"name": "{{ t.function.name }}", "arguments": {{ t.function.arguments | tojson }}}'
        "<|end|>{% endfor %}",
        "{% if add_generation_prompt %}{% endif %}",
    ),
    "single quotes": _template(
        "<|assistant|>{{ m.content or '' }}{% for t in m.tool_calls or [] %}"
        "<use tool='{{ t.function.name }}'>{% for k, v in t.function.arguments.items() %}"
        "<arg name='{{ k }}'>{{ v if v is string else v | tojson }}</arg>{% endfor %}</use>"
        "{% endfor %}<|end|>"
    ),
    "ids": _template(
        "<|assistant|>{{ m.content or '' }}{% for t in m.tool_calls or [] %}"
        '<run id="{{ t.id }}" name="{{ t.function.name }}">'
        "{{ t.function.arguments | tojson }}</run>"
        "{% endfor %}<|end|>"
    ),
}

UNREASONED = ("reasoning without a start", "a start that every answer has")
"""Those in which reasoning cannot be told from an answer while it streams."""

UNCALLABLE = ("escaped values", "arguments as text", "words")
"""Those whose calls cannot be read back."""
