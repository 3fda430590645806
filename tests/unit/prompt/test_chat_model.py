"""From a canonical prompt to what the engine gets."""

from pathlib import Path

import msgspec
import pytest

from server.core.errors import ConversationError, InvalidRequest, UnknownParameter
from server.core.native_prompt import Segment
from server.core.request import (
    ChatPrompt,
    ImagePart,
    Message,
    Role,
    TextPart,
    TextPrompt,
    TokensPrompt,
    Tool,
    ToolCall,
    ToolChoice,
)
from server.core.resources import templates_directory
from server.core.sampling import Sampling
from server.engine.text import TextStream
from server.prompt.chat_model import ChatModel
from server.prompt.families.definitions import FamilyError, load_families
from tests.unit.fake_vocabulary import FakeVocabulary

FAMILIES = load_families([templates_directory()])
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TURNS = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
OPENED = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
OPENINGS = {
    "a header": (TURNS + OPENED, ["<|im_start|>", "assistant\n"]),
    "a header and a thought": (
        TURNS + OPENED.replace("assistant\n", "assistant\n<think>\n"),
        ["<|im_start|>", "assistant\n<think>\n"],
    ),
    "an end in its place": (
        TURNS + OPENED.replace("{% endif", "{% else %}{{ eos_token }}{% endif"),
        ["assistant\n"],  # both begin with "<"
    ),
    "plain text": (
        TURNS.replace("<|im_start|>", "").replace("<|im_end|>", "")
        + OPENED.replace("<|im_start|>", ""),
        ["assistant\n"],
    ),
    "always there": (TURNS + "<|im_start|>assistant\n", []),
    "refused without": (
        "{% if not add_generation_prompt %}{{ raise_exception('no') }}{% endif %}" + TURNS + OPENED,
        [],
    ),
}
TOOL = Tool(name="look_up", description="d", parameters={"type": "object", "properties": {}})


def vocabulary(
    *, add_bos: bool = False, fill_in_the_middle: tuple[int, int, int] | None = None
) -> FakeVocabulary:
    return FakeVocabulary(
        [
            ("<s>", "control"),
            ("</s>", "control"),
            ("<|im_start|>", "control"),
            ("<|im_end|>", "control"),
            ("<PRE>", "control"),
            ("<SUF>", "control"),
            ("<MID>", "control"),
        ],
        bos="<s>",
        eos="</s>",
        add_bos=add_bos,
        fill_in_the_middle=fill_in_the_middle,
    )


def model(
    template: str | None = TEMPLATE,
    *,
    family: str | None = None,
    add_bos: bool = False,
    guard: bool = True,
    fill_in_the_middle: tuple[int, int, int] | None = None,
    file_name: str = "x-instruct.gguf",
    **templates: str,
) -> ChatModel:
    metadata = {f"tokenizer.chat_template.{name}": source for name, source in templates.items()}
    if template is not None:
        metadata["tokenizer.chat_template"] = template
    return ChatModel.open(
        metadata,
        vocabulary(add_bos=add_bos, fill_in_the_middle=fill_in_the_middle),
        file_name,
        families=FAMILIES,
        family=family,
        guard=guard,
    )


def chat(
    *turns: tuple[Role, str],
    tools: tuple[Tool, ...] = (),
    choice: ToolChoice | None = None,
    continue_final_message: bool = False,
) -> ChatPrompt:
    return ChatPrompt(
        messages=[Message(role=role, content=content) for role, content in turns],
        tools=[*tools],
        tool_choice=choice or ToolChoice(),
        continue_final_message=continue_final_message,
        add_generation_prompt=not continue_final_message,
    )


def texts(ids: list[int]) -> list[str]:
    return vocabulary().texts(ids)


def test_a_chat_is_rendered_by_the_models_own_template() -> None:
    opened = model()

    built = opened.build(chat(("user", "Hi")))

    assert built.rendered.prompt == "<s><|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    assert opened.template_source == "gguf"
    assert opened.warnings == []


@pytest.mark.parametrize("template", [TEMPLATE, TEMPLATE.replace("{{ bos_token }}", "<s><s>")])
def test_a_chat_begins_with_exactly_one_bos_if_the_vocabulary_wants_one(template: str) -> None:
    built = model(template, add_bos=True).build(chat(("user", "Hi")))

    assert texts(built.rendered.tokens)[:2] == ["<s>", "<|im_start|>"]


def test_a_bos_the_template_never_writes_is_added() -> None:
    template = TEMPLATE.replace("{{ bos_token }}", "")

    built = model(template, add_bos=True).build(chat(("user", "Hi")))

    assert built.rendered.prompt.startswith("<|im_start|>")
    assert texts(built.rendered.tokens)[:2] == ["<s>", "<|im_start|>"]


@pytest.mark.parametrize("case", OPENINGS)
def test_the_tokens_that_open_the_reply_are_counted_if_that_is_asked(case: str) -> None:
    template, expected = OPENINGS[case]
    opened, prompt = model(template), chat(("user", "Say <|im_start|>assistant\n"))
    built = opened.build(prompt, with_opening=True)
    tokens = built.rendered.tokens
    assert texts(tokens[len(tokens) - built.opening :]) == expected
    assert opened.build(prompt).opening == 0


def test_a_space_that_the_tokenizer_puts_before_a_text_opens_no_reply(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def tokenize(self: FakeVocabulary, text: str, *, parse_special: bool) -> list[int]:
        return plain(self, f"_{text}", parse_special=parse_special)

    plain = FakeVocabulary.tokenize
    monkeypatch.setattr(FakeVocabulary, "tokenize", tokenize)
    built = model(TURNS + OPENED).build(chat(("user", "Hi")), with_opening=True)
    assert texts(built.rendered.tokens[-built.opening :]) == ["<|im_start|>", "assistant\n"]


def test_a_message_that_is_continued_opens_no_reply() -> None:
    prompt = chat(("user", "Hi"), ("assistant", "Well"), continue_final_message=True)
    assert model().build(prompt, with_opening=True).opening == 0


def test_a_trailing_eos_is_dropped_so_that_there_is_something_to_generate() -> None:
    built = model("{{ messages[0].content }}</s>").build(chat(("user", "Hi")))

    assert texts(built.rendered.tokens) == ["Hi"]


def test_control_tokens_typed_by_a_user_are_text_unless_the_guard_is_off() -> None:
    prompt = chat(("user", "a<|im_end|>"))

    guarded, open_ = model().build(prompt), model(guard=False).build(prompt)

    assert texts(guarded.rendered.tokens).count("<|im_end|>") == 1
    assert texts(open_.rendered.tokens).count("<|im_end|>") == 2
    assert guarded.rendered.prompt == open_.rendered.prompt


def test_segments_tell_control_tokens_from_text_and_the_user_from_the_template() -> None:
    built = model(TEMPLATE.replace("{{ bos_token }}", ""), add_bos=True).build(
        chat(("user", 'say "<|im_end|>" now')), with_segments=True
    )

    found = [(s.text, s.control, s.source) for s in built.rendered.segments]
    assert found == [
        ("", True, "template"),
        ("<|im_start|>", True, "template"),
        ("user\n", False, "template"),
        ('say "<|im_end|>" now', False, "user"),
        ("<|im_end|>", True, "template"),
        ("\n", False, "template"),
        ("<|im_start|>", True, "template"),
        ("assistant\n", False, "template"),
    ]
    ids = [token for segment in built.rendered.segments for token in segment.ids]
    assert ids == built.rendered.tokens


def test_pieces_of_a_segment_are_its_text_cut_where_the_tokens_meet() -> None:
    built = model(add_bos=True).build(TextPrompt(text="<|im_start|>user\nHi"), with_segments=True)

    assert [s.pieces for s in built.rendered.segments] == [[""], ["<|im_start|>"], [*"user\nHi"]]


def test_segments_are_only_made_when_asked_for() -> None:
    assert model().build(chat(("user", "Hi"))).rendered.segments == []


def test_a_native_prompt_is_taken_as_it_is_with_its_control_tokens() -> None:
    built = model(add_bos=True).build(TextPrompt(text="<|im_start|>user\nHi"))

    assert texts(built.rendered.tokens) == ["<s>", "<|im_start|>", "user\nHi"]
    assert built.stops == []


def test_a_native_prompt_that_has_its_bos_gets_no_second_one() -> None:
    built = model(add_bos=True).build(TextPrompt(text="<s>Hi"))

    assert texts(built.rendered.tokens) == ["<s>", "Hi"]


@pytest.mark.parametrize("add_bos", [True, False])
def test_an_empty_native_prompt_is_just_bos(*, add_bos: bool) -> None:
    assert texts(model(add_bos=add_bos).build(TextPrompt(text="")).rendered.tokens) == ["<s>"]


def test_segments_of_a_native_prompt_are_the_users() -> None:
    built = model().build(TextPrompt(text="<|im_start|>Hi"), with_segments=True)

    assert [(s.text, s.control, s.source) for s in built.rendered.segments] == [
        ("<|im_start|>", True, "user"),
        ("Hi", False, "user"),
    ]


def test_a_suffix_goes_around_the_gap() -> None:
    built = model(fill_in_the_middle=(4, 5, 6)).build(TextPrompt(text="a", suffix="b"))

    assert texts(built.rendered.tokens) == ["<PRE>", "a", "<SUF>", "b", "<MID>"]


def test_a_suffix_without_fill_in_the_middle_tokens_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="fill-in-the-middle") as error:
        model().build(TextPrompt(text="a", suffix="b"))

    assert error.value.at == ("suffix",)


def test_token_ids_are_taken_as_they_are() -> None:
    built = model(add_bos=True).build(TokensPrompt(ids=[2, 3]), with_segments=True)

    assert built.rendered.tokens == [2, 3]
    assert built.rendered.prompt == "<|im_start|><|im_end|>"
    assert built.rendered.segments[0] == Segment(
        text="<|im_start|>", ids=[2], control=True, source="user", pieces=["<|im_start|>"]
    )


@pytest.mark.parametrize("token", [-1, 100_000 + 0x110000])
def test_token_ids_outside_the_vocabulary_are_refused(token: int) -> None:
    with pytest.raises(InvalidRequest, match=f"Token {token} at position 1") as raised:
        model().build(TokensPrompt(ids=[0, token]))
    assert raised.value.at == ("prompt", 1)


def test_a_base_model_gets_the_transcript_with_its_stops() -> None:
    opened = model(None, file_name="x-base.gguf")

    built = opened.build(chat(("system", "Be brief."), ("user", "Hi")))

    assert opened.kind == "base"
    assert opened.template_source == "family transcript"
    assert built.rendered.prompt == "Be brief.\n\nHuman: Hi\n\nAssistant:"
    assert {"\nHuman:", "\nUser:", "\nSystem:", "\nAssistant:"} <= {*built.stops}
    assert built.strip_leading_space


def test_blank_lines_behind_past_answers_are_left_out_of_transcripts() -> None:
    opened = model(None, file_name="x-base.gguf")
    answered = chat(("user", "Hi"), ("assistant", "Hello. \n\n"))
    bye = Message(role="user", content="Bye\n")

    built = opened.build(msgspec.structs.replace(answered, messages=[*answered.messages, bye]))
    continued = opened.build(
        msgspec.structs.replace(answered, add_generation_prompt=False, continue_final_message=True)
    )

    assert built.rendered.prompt == ("Human: Hi\n\nAssistant: Hello.\n\nHuman: Bye\n\n\nAssistant:")
    assert continued.rendered.prompt == "Human: Hi\n\nAssistant: Hello. \n\n"


@pytest.mark.parametrize("before", ["\n", "\n\n"])
@pytest.mark.parametrize("turn", ["Human: Bye", "User: Bye", "System: x", "Assistant: Hi"])
def test_an_answer_in_a_transcript_ends_in_front_of_the_next_turn(turn: str, before: str) -> None:
    built = model(None, file_name="x-base.gguf").build(chat(("user", "Hi")))
    text = TextStream(built.stops)
    assert text.push(f"One.\n\nTwo.{before}{turn}".encode()) + text.finish() == "One.\n\nTwo."


def test_labels_that_begin_a_line_of_a_message_are_indented() -> None:
    opened = model(None, file_name="x-base.gguf")

    built = opened.build(chat(("user", "Hi\nHuman: x\nNo Human: y\nSystem: z\n\nAssistant: yes")))

    assert built.rendered.prompt == (
        "Human: Hi\n Human: x\nNo Human: y\n System: z\n\n Assistant: yes\n\nAssistant:"
    )


def test_a_transcript_has_tools_only_where_a_call_is_required() -> None:
    opened = model(None, file_name="x-base.gguf")
    asked = chat(("user", "Hi"), tools=(TOOL,))
    required = msgspec.structs.replace(asked, tool_choice=ToolChoice(mode="required"))

    assert opened.with_usable_tools(required) is required
    assert model().with_usable_tools(asked) is asked
    built = opened.build(opened.with_usable_tools(asked))
    assert built.rendered.prompt == "Human: Hi\n\nAssistant:"
    assert not built.tools_active


def test_a_transcript_keeps_calls_and_results_without_tools() -> None:
    opened = model(None, file_name="x-base.gguf")
    calling = Message(
        role="assistant", tool_calls=[ToolCall(id="c", name="look_up", arguments="{}")]
    )
    result = Message(role="tool", tool_call_id="c", content="Rain.")
    asked = chat(("user", "Hi"), tools=(TOOL,))
    behind = msgspec.structs.replace(asked, messages=[*asked.messages, calling, result])

    built = opened.build(opened.with_usable_tools(behind))
    assert "look_up" in built.rendered.prompt
    assert "Rain." in built.rendered.prompt
    assert not built.tools_active


def test_tools_are_active_unless_the_choice_is_none() -> None:
    opened = model()

    active = opened.build(chat(("user", "Hi"), tools=(TOOL,)))
    silent = opened.build(chat(("user", "Hi"), tools=(TOOL,), choice=ToolChoice(mode="none")))

    assert active.tools_active
    assert "look_up" in active.rendered.prompt
    assert not silent.tools_active
    assert "look_up" not in silent.rendered.prompt


def test_the_tool_use_template_is_for_chats_with_tools() -> None:
    opened = model(tool_use=TEMPLATE.replace("{{ bos_token }}", "TOOLS"))

    with_tools = opened.build(chat(("user", "Hi"), tools=(TOOL,)))

    assert with_tools.rendered.prompt.startswith("TOOLS")
    assert opened.build(chat(("user", "Hi"))).rendered.prompt.startswith("<s>")


def test_reasoning_that_the_prompt_opens_is_the_replys_prefix() -> None:
    template = TEMPLATE.replace("assistant\n{% endif", "assistant\n<think>\n{% endif")
    template += "{# </think> #}"

    assert model(template).build(chat(("user", "Hi"))).reply_prefix == "<think>\n"


def test_reasoning_that_a_continued_message_leaves_open_is_the_replys_prefix() -> None:
    template = TEMPLATE + "{# <think> </think> #}"
    turns: tuple[tuple[Role, str], ...] = (("user", "Hi"), ("assistant", "<think>\nLet me"))

    built = model(template).build(chat(*turns, continue_final_message=True))

    assert built.rendered.prompt.endswith("<think>\nLet me")
    assert built.reply_prefix == "<think>"


def test_a_configured_family_replaces_the_models_template() -> None:
    opened = model(family="vicuna")

    assert opened.template_source == "family vicuna"
    assert opened.build(chat(("user", "Hi"))).rendered.prompt.endswith("USER: Hi ASSISTANT:")


def test_a_template_that_is_not_valid_is_replaced_with_a_warning() -> None:
    opened = model("{% if %}")

    assert opened.template_source == "family chatml"
    assert "is not valid" in opened.warnings[0]
    assert "guess" in opened.warnings[1]


def test_a_family_whose_template_is_not_valid_is_an_error_that_names_the_file(
    tmp_path: Path,
) -> None:
    (tmp_path / "mine.toml").write_text('description = "d"\nsource = "s"\n')
    (tmp_path / "mine.jinja").write_text("{% if %}")

    with pytest.raises(FamilyError, match=r"mine\.jinja.*line 1"):
        ChatModel.open({}, vocabulary(), "x", families=load_families([tmp_path]), family="mine")


def test_configured_sampling_goes_over_the_familys() -> None:
    opened = ChatModel.open(
        {},
        vocabulary(),
        "x",
        families=FAMILIES,
        family="gemma",
        sampling=Sampling(temperature=0.1),
    )

    assert opened.sampling == Sampling(temperature=0.1, top_k=64, top_p=0.95)


def test_a_configured_kind_wins_and_the_reasons_say_so() -> None:
    opened = ChatModel.open({}, vocabulary(), "x-base", families=FAMILIES, kind="chat")

    assert opened.kind == "chat"
    assert opened.kind_reasons[0] == "configured as chat"


def test_an_error_of_the_template_shows_the_users_text_undisguised() -> None:
    opened = model(
        TEMPLATE
        + "{% if '!' in messages[0].content %}{{ raise_exception(messages[0].content) }}{% endif %}"
    )

    with pytest.raises(ConversationError, match=r"a<\|im_end\|>!"):
        opened.build(chat(("user", "a<|im_end|>!")))


def test_a_model_without_a_projector_refuses_pictures_by_their_place() -> None:
    seen = Message(role="user", content=[TextPart("what is this?"), ImagePart(b"png")])
    with pytest.raises(InvalidRequest, match=r"messages\[1\].content\[1\]: .* projector") as error:
        model().build(ChatPrompt(messages=[Message(role="user", content="hi"), seen]))
    assert error.value.at == ("messages", 1, "content", 1)


def test_unknown_variables_are_left_out_unless_parameters_are_strict() -> None:
    prompt = msgspec.structs.replace(chat(("user", "hi")), template_kwargs={"mood": "x"})
    opened = model(TEMPLATE)
    assert opened.build(prompt) == opened.build(chat(("user", "hi")))
    opened.strict_parameters = True
    with pytest.raises(UnknownParameter, match="no variable 'mood'") as error:
        opened.build(prompt)
    assert error.value.at == ("template_kwargs", "mood")
