"""Images in conversations, through templates of each kind that vision models have."""

from __future__ import annotations

import pytest

from server.core.errors import ConversationError, InvalidImage, UnsupportedParameter
from server.core.pieces import ImagePiece, Piece, TokenRun
from server.core.request import ChatPrompt, Content, ImagePart, Message, Role, TextPart, ToolCall
from server.core.resources import templates_directory
from server.prompt.built_prompt import BuiltPrompt
from server.prompt.chat_model import ChatModel
from server.prompt.families.definitions import load_families
from server.prompt.known_template import KnownTemplate
from server.prompt.template.chat_template import ChatTemplate
from tests.unit.fake_vocabulary import FakeVocabulary

_OPEN = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    + _OPEN
)
"""Knows content as a string alone."""

PADDED = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.content is string %}{{ m.content }}{% else %}{% for part in m.content %}"
    "{% if part.type == 'image' or 'image_url' in part %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% elif 'text' in part %}{{ part.text }}"
    "{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}" + _OPEN
)
"""As Qwen's: three tokens for an image, in every role."""

USERS_ONLY = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.content is string %}{{ m.content }}{% else %}{% for part in m.content %}"
    "{% if part.type == 'text' %}{{ part.text | trim }}"
    "{% elif part.type in ['image', 'image_url'] and m.role == 'user' %}[IMG]"
    "{% else %}{{ raise_exception('only text here') }}{% endif %}{% endfor %}{% endif %}"
    "<|im_end|>\n{% endfor %}" + _OPEN
)
"""As Mistral's: images in the user's turns, an error elsewhere."""

IMAGES_FIRST = (
    "{% for m in messages %}{{ m.role | upper }}: "
    "{% for part in m.content | selectattr('type', 'equalto', 'image') %}<image>\n{% endfor %}"
    "{% for part in m.content | selectattr('type', 'equalto', 'text') %}{{ part.text }}{% endfor %}"
    " {% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
"""As LLaVA's: takes parts alone, and shows the images of a turn before its text."""

NUMBERED = (
    "{% set n = namespace(images=0) %}{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.content is string %}{{ m.content }}{% else %}{% for part in m.content %}"
    "{% if part.type == 'image' %}{% set n.images = n.images + 1 %}<|image_{{ n.images }}|>"
    "{% else %}{{ part.text }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}" + _OPEN
)
"""As Phi's: each image has another marker."""

OPENAI_PARTS = PADDED.replace("part.type == 'image' or ", "")
"""Knows OpenAI's name for images alone."""

HUNYUAN = (
    "<s>{% for m in messages %}{% if m.content is string %}{{ m.content }}"
    "{% else %}{% for part in m.content %}{% if part.type in ['image', 'image_url'] %}"
    "<｜hy_100｜><｜hy_102｜><｜hy_101｜>{% else %}{{ part.text }}"
    "{% endif %}{% endfor %}{% endif %}"
    "{% if m.role == 'user' %}<｜hy_User｜>{% elif m.role == 'assistant' %}<｜hy_Assistant｜>"
    "{% else %}<｜hy_3｜>{% endif %}{% endfor %}"
)
"""As HunyuanVL's: who speaks is said behind the text, images are three tokens."""

BARE = (
    "{% for m in messages %}{% if m.content is string %}{{ m.content }}{% else %}"
    "{% for part in m.content %}{% if part.type == 'image' %}{{ '<image>\n' }}{% else %}"
    "{{ part.text }}{% endif %}{% endfor %}{% endif %}{% endfor %}"
)
"""As DeepSeek-OCR's: content alone, without roles; the marker is no token."""

PREFIXED = (
    "{% for m in messages %}{{ '<｜User｜>: ' if m.role == 'user' else '<｜Assistant｜>: ' }}"
    "{% if m.content is string %}{{ m.content }}{% else %}{% for part in m.content %}"
    "{% if part.type == 'image' %}{{ '<image_placeholder>\n' }}{% else %}{{ part.text }}"
    "{% endif %}{% endfor %}{% endif %}{{ '\n\n' if m.role == 'user' else '</s>' }}{% endfor %}"
    "{% if add_generation_prompt %}<｜Assistant｜>:{% endif %}"
)
"""As DeepSeek-VL's: a marker in a line of its own."""

A, B, C = ImagePart(b"A"), ImagePart(b"B"), ImagePart(b"C")
CALL = ToolCall(id="call00001", name="look", arguments="{}")


def vocabulary() -> FakeVocabulary:
    texts = ["<s>", "</s>", "<|im_start|>", "<|im_end|>", "[IMG]", "<b>", "<e>"]
    texts += ["<|vision_start|>", "<|image_pad|>", "<|vision_end|>"]
    texts += ["<｜hy_100｜>", "<｜hy_101｜>", "<｜hy_102｜>", "<｜hy_User｜>", "<｜hy_Assistant｜>"]
    texts += ["<｜hy_3｜>", "<｜User｜>", "<｜Assistant｜>"]
    return FakeVocabulary([(text, "control") for text in texts], bos="<s>", eos="</s>")


VOCABULARY = vocabulary()


def read(part: ImagePart) -> list[Piece]:
    """An image as three cells between two tokens."""
    begin, end = TokenRun((VOCABULARY.id("<b>"),)), TokenRun((VOCABULARY.id("<e>"),))
    return [begin, ImagePiece(cells=3, positions=3, digest=part.data), end]


def model(template: str, *, guard: bool = True) -> ChatModel:
    return ChatModel.open(
        {"tokenizer.chat_template": template},
        VOCABULARY,
        "x-instruct.gguf",
        families=load_families([templates_directory()]),
        guard=guard,
    )


def says(role: Role, *parts: str | ImagePart) -> Message:
    content: Content = [TextPart(part) if isinstance(part, str) else part for part in parts]
    return Message(role=role, content=content)


def result(*parts: str | ImagePart) -> list[Message]:
    """A call, and its result with ``parts``."""
    calling = Message(role="assistant", tool_calls=[CALL])
    content: Content = [TextPart(part) if isinstance(part, str) else part for part in parts]
    return [calling, Message(role="tool", content=content, tool_call_id=CALL.id)]


def built(template: str, *messages: Message, guard: bool = True) -> BuiltPrompt:
    prompt = ChatPrompt(messages=list(messages))
    return model(template, guard=guard).build(prompt, with_segments=True, read_image=read)


def native(prompt: BuiltPrompt) -> str:
    """The prompt for the engine: control tokens in double brackets, images as ``{A}``."""
    text = ""
    for piece in prompt.pieces:
        if isinstance(piece, ImagePiece):
            text += f"{{{piece.digest.decode()}}}"
            continue
        for token in piece.ids:
            control = token < len(VOCABULARY.special_tokens)
            text += f"⟦{VOCABULARY.text(token)}⟧" if control else VOCABULARY.text(token)
    return text


def image(name: str) -> str:
    return f"⟦<b>⟧{{{name}}}⟦<e>⟧"


START, END = "⟦<|im_start|>⟧", "⟦<|im_end|>⟧\n"
OPENING = f"{START}assistant\n"


@pytest.mark.parametrize("template", [CHATML, PADDED, USERS_ONLY, NUMBERED, OPENAI_PARTS])
def test_images_stand_where_they_are_in_a_turn(template: str) -> None:
    prompt = built(
        template, says("user", "see", A, "and", B), says("assistant", "ok"), says("user", C)
    )
    expected = f"{START}user\nsee{image('A')}and{image('B')}{END}{START}assistant\nok{END}"
    assert native(prompt) == f"{expected}{START}user\n{image('C')}{END}{OPENING}"


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (HUNYUAN, "⟦<s>⟧see{A}and{B}⟦<｜hy_User｜>⟧ok⟦<｜hy_Assistant｜>⟧{C}⟦<｜hy_User｜>⟧"),
        (BARE, "see{A}\nand{B}\nok{C}\n"),
        (
            PREFIXED,
            (
                "⟦<｜User｜>⟧: see{A}\nand{B}\n\n\n⟦<｜Assistant｜>⟧: ok⟦</s>⟧"
                "⟦<｜User｜>⟧: {C}\n\n\n⟦<｜Assistant｜>⟧:"
            ),
        ),
    ],
)
def test_images_stand_where_they_are_without_roles_before_them(
    template: str, expected: str
) -> None:
    prompt = built(
        template, says("user", "see", A, "and", B), says("assistant", "ok"), says("user", C)
    )
    assert native(prompt) == expected.format(A=image("A"), B=image("B"), C=image("C"))


def test_a_template_that_shows_images_first_does_so() -> None:
    prompt = built(IMAGES_FIRST, says("user", "see", A, "and", B), says("assistant", "ok"))
    assert native(prompt) == f"USER: {image('A')}\n{image('B')}\nseeand ASSISTANT: ok ASSISTANT:"


@pytest.mark.parametrize("template", [CHATML, PADDED, USERS_ONLY, NUMBERED])
def test_system_text_and_results_of_tools_keep_their_images(template: str) -> None:
    messages = [says("system", "know", A), says("user", "hi"), *result("seen", B), says("user", C)]
    text = native(built(template, *messages))
    assert f"know{image('A')}" in text
    assert f"seen{image('B')}" in text
    assert text.count(image("C")) == 1


@pytest.mark.parametrize("guard", [True, False])
@pytest.mark.parametrize(
    "template",
    [CHATML, PADDED, USERS_ONLY, IMAGES_FIRST, NUMBERED, HUNYUAN, BARE, PREFIXED],
)
@pytest.mark.parametrize(
    "text",
    [
        "<|vision_start|><|image_pad|><|vision_end|>",
        "[IMG]",
        "<image>",
        "<image>\n<image>",
        "<|image_1|>",
        "<__media__>",
        "<｜hy_100｜><｜hy_102｜><｜hy_101｜>",
        "<image_placeholder>",
        "\ue000\ue001\uf8ff",
    ],
)
def test_text_of_a_request_makes_no_image(template: str, text: str, guard: bool) -> None:
    prompt = built(template, says("user", text, A, text), guard=guard)
    assert [piece.digest for piece in prompt.pieces if isinstance(piece, ImagePiece)] == [b"A"]
    without = native(prompt).replace("⟦", "").replace("⟧", "")
    assert without.count(text) == 2


def test_text_of_a_request_makes_no_control_token_beside_an_image() -> None:
    text = native(built(PADDED, says("user", "<|im_end|>", A, "<|image_pad|>")))
    assert text == f"{START}user\n<|im_end|>{image('A')}<|image_pad|>{END}{OPENING}"


def test_an_image_alone_in_the_prompt_comes_behind_bos() -> None:
    template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    chat = ChatModel.open(
        {"tokenizer.chat_template": template},
        FakeVocabulary([("<s>", "control")], bos="<s>", add_bos=True),
        "x-instruct.gguf",
        families=load_families([templates_directory()]),
    )
    pieces = chat.build(ChatPrompt(messages=[says("user", A)]), read_image=read).pieces
    assert pieces[0] == TokenRun((0,))
    assert pieces[1:] == read(A)


def test_what_is_shown_of_a_prompt_counts_each_cell_of_an_image() -> None:
    shown = built(PADDED, says("user", "see", A)).rendered
    assert shown.tokens.count(-1) == 3
    assert "".join(segment.text for segment in shown.segments) == shown.prompt
    assert shown.prompt.count("<|vision_start|><|image_pad|><|vision_end|>") == 1
    images = [segment for segment in shown.segments if segment.source == "image"]
    assert [len(segment.ids) for segment in images] == [5]
    assert [token for segment in shown.segments for token in segment.ids] == shown.tokens


def test_an_image_without_a_marker_is_shown_by_a_word() -> None:
    assert built(CHATML, says("user", "see", A)).rendered.prompt.startswith(
        "<|im_start|>user\nsee<image><|im_end|>"
    )


def test_the_same_image_may_come_twice() -> None:
    assert native(built(PADDED, says("user", A, A))).count(image("A")) == 2


def test_an_answer_with_an_image_can_be_continued() -> None:
    messages = [says("user", "hi"), says("assistant", "see", A, "this")]
    prompt = ChatPrompt(messages=messages, add_generation_prompt=False, continue_final_message=True)
    text = native(model(PADDED).build(prompt, read_image=read))
    assert text.endswith(f"{START}assistant\nsee{image('A')}this")


def test_turns_that_are_merged_keep_their_images() -> None:
    strict = CHATML.replace(
        "{% for m in messages %}",
        "{% for m in messages %}{% if loop.index0 and m.role == messages[loop.index0 - 1].role %}"
        "{{ raise_exception('roles must alternate') }}{% endif %}",
    )
    text = native(built(strict, says("user", "one", A), says("user", B, "two")))
    assert text == f"{START}user\none{image('A')}\n\n{image('B')}two{END}{OPENING}"


def test_an_image_that_cannot_be_read_is_named_by_its_place() -> None:
    def broken(part: ImagePart) -> list[Piece]:
        if part == B:
            raise InvalidImage("{place}: the image is damaged.")
        return read(part)

    prompt = ChatPrompt(messages=[says("user", A), *result("x", B)])
    with pytest.raises(
        InvalidImage, match=r"messages\[2\].content\[1\]: the image is dam"
    ) as error:
        model(CHATML).build(prompt, read_image=broken)
    assert error.value.at == ("messages", 2, "content", 1)


def test_an_image_that_the_template_leaves_out_is_named_by_its_place() -> None:
    # It shows no text of the user's that is one character long.
    template = CHATML.replace(
        "{{ m.content }}", "{% if m.content | length > 1 %}{{ m.content }}{% endif %}"
    )
    with pytest.raises(ConversationError, match=r"messages\[1\].content\[0\] cannot be") as error:
        built(template, says("system", "be brief"), says("user", A))
    assert error.value.at == ("messages", 1, "content", 0)


def test_without_a_projector_the_first_image_is_refused() -> None:
    with pytest.raises(
        UnsupportedParameter, match=r"^messages\[0\].content\[1\]: this model sees no"
    ):
        model(PADDED).build(ChatPrompt(messages=[says("user", "see", A)]))


@pytest.mark.parametrize(
    ("template", "marker"),
    [(CHATML, "<image>"), (PADDED, "<|vision_start|><|image_pad|><|vision_end|>")],
)
def test_a_prompt_without_a_tokenizer_shows_images(template: str, marker: str) -> None:
    known = KnownTemplate.learn(ChatTemplate(template), None)
    prompt = ChatPrompt(messages=[says("user", "see", A, "<image>")], add_generation_prompt=False)
    assert known.text(prompt) == f"<|im_start|>user\nsee{marker}<image><|im_end|>\n"
