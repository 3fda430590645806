import time

import pytest

from server.prompt.messages.capabilities import Capabilities
from server.prompt.messages.probe import probe
from server.prompt.template.chat_template import ChatTemplate
from tests.unit.prompt.corpus import TEMPLATES, capabilities, each_template, template

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@each_template
def test_every_template_renders_and_can_be_continued(name: str) -> None:
    verdicts = capabilities(name)
    assert verdicts.renders
    assert verdicts.continuation


@each_template
def test_probing_is_quick(name: str) -> None:
    started = time.process_time()
    probe(template(name))
    assert time.process_time() - started < 0.5


@pytest.mark.parametrize(
    ("name", "able", "unable"),
    [
        (
            "Qwen-Qwen3-0.6B",
            "system_role tools tool_calls parallel_calls object_arguments reasoning late_system",
            "developer_role content_parts null_content_with_calls",
        ),
        ("google-gemma-2-2b-it", "", "system_role tools tool_calls consecutive_users"),
        (
            "openai-gpt-oss-120b",
            "developer_role reasoning tool_results",
            "several_systems parallel_calls content_with_calls bare_tools",
        ),
        ("meta-llama-Llama-3.1-8B-Instruct", "tool_calls tools", "parallel_calls"),
        (
            "mistralai-Mistral-Nemo-Instruct-2407",
            "tools tool_calls short_call_ids parallel_calls",
            "free_call_ids lasting_system user_after_results assistant_first",
        ),
        (
            "deepseek-ai-DeepSeek-R1-Distill-Llama-8B",
            "tool_calls null_content_with_calls",
            "tools object_arguments empty_content_with_calls several_systems",
        ),
        ("microsoft-Phi-3.5-mini-instruct", "system_role", "tools tool_calls tool_results"),
        ("moonshotai-Kimi-K2", "content_parts tool_calls", "author_names"),
        ("deepseek-ai-DeepSeek-V3.2", "reasoning", "developer_role"),
    ],
)
def test_verdicts_on_known_templates(name: str, able: str, unable: str) -> None:
    if name not in TEMPLATES:
        pytest.skip("needs ../shared/corpus/templates")
    verdicts = capabilities(name)
    assert {it for it in able.split() if not getattr(verdicts, it)} == set()
    assert {it for it in unable.split() if getattr(verdicts, it)} == set()


def test_roles_written_by_name_alone_prove_nothing() -> None:
    verdicts = probe(ChatTemplate(CHATML))
    assert verdicts.system_role
    assert not verdicts.developer_role
    assert not verdicts.tool_results


def test_content_printed_as_a_list_is_no_support_for_parts() -> None:
    assert not probe(ChatTemplate(CHATML)).content_parts


def test_a_template_for_parts_only_is_recognised() -> None:
    verdicts = probe(
        ChatTemplate(
            "{% for m in messages %}{{ m.role }}:"
            "{% for p in m.content %}{{ p.text }}{% endfor %};{% endfor %}"
        )
    )
    assert verdicts.renders
    assert not verdicts.string_content
    assert verdicts.system_role
    assert verdicts.consecutive_users


@pytest.mark.parametrize(
    ("arguments", "as_object"),
    [("c.function.arguments | tojson", True), ("'' + c.function.arguments", False)],
)
def test_arguments_are_wanted_in_the_form_that_is_not_encoded_twice(
    arguments: str, as_object: bool
) -> None:
    source = (
        "{% for m in messages %}{{ m.content }}{% for c in m.tool_calls or [] %}"
        "{{ c.function.name }}{{ " + arguments + " }}{% endfor %}{% endfor %}"
    )
    verdicts = probe(ChatTemplate(source))
    assert verdicts.tool_calls
    assert verdicts.object_arguments is as_object


def test_names_read_from_ids_need_ids_that_name_the_function() -> None:
    source = (
        "{% for m in messages %}{{ m.content }}{% for c in m.tool_calls or [] %}"
        "{{ c.id }}{{ c.function.arguments | tojson }}{% endfor %}{% endfor %}"
    )
    verdicts = probe(ChatTemplate(source))
    assert verdicts.tool_calls
    assert not verdicts.free_call_ids
    assert not verdicts.short_call_ids


def test_a_template_that_renders_nothing_can_do_nothing() -> None:
    assert probe(ChatTemplate("{{ raise_exception('no') }}")) == Capabilities()
    assert probe(ChatTemplate("constant")) == Capabilities()


@pytest.mark.parametrize(
    ("place", "late"),
    [
        ("{{ system }}{% for m in turns %}{{ m.content }}{% endfor %}", False),
        ("{% for m in messages %}{{ m.content }}{% endfor %}", True),
        ("{% for m in turns %}{{ system if loop.last }}{{ m.content }}{% endfor %}", False),
    ],
    ids=["first", "where it stands", "before the last turn"],
)
def test_late_system_text_counts_only_where_it_keeps_its_place(place: str, late: bool) -> None:
    source = (
        "{% set system = messages | selectattr('role', 'equalto', 'system')"
        " | map(attribute='content') | join %}"
        "{% set turns = messages | rejectattr('role', 'equalto', 'system') | list %}"
    )
    assert probe(ChatTemplate(source + place)).late_system is late
