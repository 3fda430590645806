"""Which format a template gets, and whether it reads what the template writes."""

from __future__ import annotations

from functools import cache

import pytest

from server.core.reply_format import Reasoning, ReplyFormat
from server.prompt.format_discovery.candidates import candidates
from server.prompt.format_discovery.difference import derive_calls, derive_reasoning
from server.prompt.format_discovery.resolve import resolve_reply_format
from server.prompt.format_discovery.round_trip import RoundTrip
from server.prompt.messages.probe import probe
from server.prompt.template.chat_template import ChatTemplate
from server.reply.builtin_formats import builtin_format
from tests.unit.prompt.corpus import TEMPLATES, capabilities, each_template, template

SUPPORTED = {
    "Apertus-8B-Instruct": "apertus",
    "Apriel-1.6-15b-Thinker-fixed": "apriel",
    "ByteDance-Seed-OSS": "seed-oss",
    "Cohere2MoE": "cohere",
    "CohereForAI-c4ai-command-r-plus-tool_use": "command-r",
    "GLM-4.6": "glm",
    "GigaChat3-10B-A1.8B": "gigachat-3",
    "HuggingFaceTB-SmolLM3-3B": "derived",
    "Kimi-K2-Instruct": "kimi-k2",
    "LFM2-8B-A1B": "lfm2",
    "LFM2.5-8B-A1B": "lfm2",
    "MiniMax-M1": "minimax-m1",
    "MiniMax-M2": "minimax-m2",
    "Mistral-Small-3.2-24B-Instruct-2506": "mistral-call-id",
    "NVIDIA-Nemotron-Nano-v2": "nemotron-v2",
    "NousResearch-Hermes-2-Pro-Llama-3-8B-tool_use": "hermes",
    "Qwen-Qwen2.5-7B-Instruct": "hermes",
    "Qwen-Qwen3-0.6B": "hermes",
    "Qwen3-Coder": "qwen3-coder",
    "Spark2.5": "glm",
    "deepseek-ai-DeepSeek-R1-Distill-Llama-8B": "deepseek-r1",
    "deepseek-ai-DeepSeek-V3.1": "deepseek-v3_1",
    "deepseek-ai-DeepSeek-V3.2": "deepseek-v3_2",
    "deepseek-ai-DeepSeek-V4-Flash-0731": "deepseek-v4",
    "fireworks-ai-llama-3-firefunction-v2": "functools",
    "google-gemma-2-2b-it": "derived",
    "google-gemma-4-31B-it-interleaved": "gemma-4",
    "ibm-granite-granite-3.3-2B-Instruct": "granite-3",
    "ibm-granite-granite-4.0": "hermes",
    "inclusionai-ling-3.0-flash": "glm",
    "llama-cpp-deepseek-r1": "deepseek-r1",
    "llama-cpp-rwkv-world": "derived",
    "meetkai-functionary-medium-v3.1": "functionary-3_1",
    "meta-llama-Llama-3.1-8B-Instruct": "llama-3",
    "meta-llama-Llama-3.2-3B-Instruct": "llama-3",
    "microsoft-Phi-3.5-mini-instruct": "derived",
    "mistralai-Mistral-Nemo-Instruct-2407": "mistral-nemo",
    "moonshotai-Kimi-K2": "kimi-k2",
    "muse-glimmer": "muse",
    "openai-gpt-oss-120b": "gpt-oss",
    "poolside-Laguna-S-2.1": "glm",
    "poolside-Laguna-XS-2.1": "glm",
    "unsloth-mistral-Devstral-Small-2507": "mistral-args",
}
"""The format of each template; "derived" ones call in the generic way."""

NOT_DERIVABLE = {
    *(name for name, found in SUPPORTED.items() if found == "derived"),  # none of their own
    "LFM2-8B-A1B",  # shows no calls
    "ibm-granite-granite-3.3-2B-Instruct",  # shows no calls
    "CohereForAI-c4ai-command-r-plus-tool_use",  # JSON over several lines
    "LFM2.5-8B-A1B",  # Python
    "deepseek-ai-DeepSeek-V3.2",  # marks strings
    "deepseek-ai-DeepSeek-V4-Flash-0731",  # marks strings
    "google-gemma-4-31B-it-interleaved",  # Gemma's own
    "muse-glimmer",  # names the function twice
}
MADE_UP = """{%- if tools %}{{ tools | tojson }}{% endif %}
{%- for m in messages %}{{ '[' + m.role + ']' }}
{%- if m.reasoning_content %}{{ '<muse>' + m.reasoning_content + '</muse>' }}{% endif %}
{{- m.content or '' }}
{%- for call in m.tool_calls or [] %}
{{- '<<' + call.function.name + '>>' + call.function.arguments | tojson + '<<end>>' }}
{%- endfor %}{{ '[end]' }}{% endfor %}
{%- if add_generation_prompt %}[assistant]{% endif %}"""


@cache
def made_up() -> ChatTemplate:
    return ChatTemplate(MADE_UP)


@each_template
def test_calls_come_back_through_the_template(name: str) -> None:
    found = resolve_reply_format(template(name), capabilities(name), None)
    assert found
    assert found.calls
    assert found.name == SUPPORTED[name]
    assert RoundTrip(template(name), capabilities(name)).holds(found)


@pytest.mark.skipif(not TEMPLATES, reason="needs ../shared/corpus/templates")
@pytest.mark.parametrize("name", sorted(SUPPORTED.keys() - NOT_DERIVABLE))
def test_most_syntaxes_can_be_derived_without_knowing_the_family(name: str) -> None:
    known = candidates(template(name))[0]
    round_trip = RoundTrip(template(name), capabilities(name))
    calls = derive_calls(round_trip, known.reasoning)
    assert calls
    assert round_trip.holds(ReplyFormat(name="derived", reasoning=known.reasoning, calls=calls))


def test_an_unknown_syntax_is_derived() -> None:
    found = resolve_reply_format(made_up(), probe(made_up()), None)
    assert found
    assert found.calls
    assert found.calls.call == "<<{name}>>{arguments}<<end>>"
    assert found.calls.several
    assert found.reasoning == Reasoning(start="<muse>", end="</muse>")


def test_what_cannot_be_read_back_counts_as_unsupported() -> None:
    source = MADE_UP.replace("| tojson + '<<end>>'", "| length | string")
    broken = ChatTemplate(source)
    able = probe(made_up())
    assert able.tool_calls
    found = resolve_reply_format(broken, able, None)
    assert found is None or found.calls is None


def test_the_family_wins_but_only_with_calls_that_come_back() -> None:
    table = {"calls": {"call": "<<{name}>>{arguments}<<end>>"}}
    found = resolve_reply_format(made_up(), probe(made_up()), table)
    assert found
    assert found.name == "custom"
    assert found.calls
    wrong = resolve_reply_format(made_up(), probe(made_up()), {"format": "hermes"})
    assert wrong
    assert (wrong.name, wrong.calls) == ("hermes", None)


def test_a_family_may_add_reasoning_to_what_is_found() -> None:
    table = {"reasoning": {"start": "<a>", "end": "</a>"}, "stops": ["x"]}
    found = resolve_reply_format(made_up(), probe(made_up()), table)
    assert found
    assert found.calls
    assert found.reasoning_edges == ("<a>", "</a>")
    assert found.stops == ("x",)


def test_a_format_holds_where_a_template_shows_past_reasoning_and_no_calls() -> None:
    shows = ChatTemplate(
        "{{ tools | tojson }}{% for m in messages %}<|{{ m.role }}|>"
        "{% if m.reasoning_content %}<think>\n{{ m.reasoning_content }}\n</think>\n\n{% endif %}"
        "{{ m.content }}<|end|>{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    assert RoundTrip(shows, probe(shows)).holds(builtin_format("qwen3-coder"))


def test_reasoning_is_derived_where_the_template_shows_it() -> None:
    round_trip = RoundTrip(made_up(), probe(made_up()))
    assert derive_reasoning(round_trip) == Reasoning(start="<muse>", end="</muse>")


def test_a_hash_comes_before_the_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    from server.prompt.format_discovery import candidates as select

    both = ChatTemplate("{{ '<tool_call>' }}")
    rules = {
        "hermes": select.FormatRule(has=("<tool_call>",)),
        "glm": select.FormatRule(sha256=(both.sha256,)),
    }
    monkeypatch.setattr(select, "_rules", lambda: rules)
    assert candidates(both) == [builtin_format("glm"), builtin_format("hermes")]


def test_arguments_with_only_a_blank_between_key_and_value_are_not_derived() -> None:
    """They could not be told apart; the model loads without a call syntax."""
    source = """{% for m in messages %}<|{{ m.role }}|>{{ m.content or '' }}
    {%- for c in m.tool_calls or [] %}<call>{{ c.function.name }}
    {%- for k, v in c.function.arguments.items() %}<p>{{ k }} {{ v }}</p>{% endfor %}</call>
    {%- endfor %}<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"""
    known = ChatTemplate(source, bos_token="", eos_token="<|end|>")
    found = resolve_reply_format(known, probe(known), None)
    assert found is None or found.calls is None
