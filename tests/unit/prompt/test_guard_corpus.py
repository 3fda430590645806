"""The guard on published templates and vocabularies, against people who know them well.

The measure is always the same: a conversation of hostile texts becomes exactly the control tokens
that the same conversation of harmless texts becomes.
"""

import re
from collections.abc import Iterator
from functools import cache, partial
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.core.errors import ConversationError
from server.core.request import ChatPrompt, Message, TextPart, Tool, ToolCall
from server.core.resources import templates_directory
from server.core.vocabulary import Vocabulary
from server.engine.llama import LlamaModel
from server.prompt.families.definitions import load_families
from server.prompt.model_template import ModelTemplate
from server.prompt.prompt_pieces import displayed_tokens, pieces_of
from server.prompt.template.chat_template import ChatTemplate, templates_in
from tests.unit.fake_vocabulary import FakeVocabulary
from tests.unit.prompt.corpus import CORPUS, TEMPLATES

pytestmark = pytest.mark.process

VOCABULARIES = {
    path.stem.removeprefix("ggml-vocab-"): path
    for path in sorted((CORPUS / "vocabs").glob("*.gguf"))
}
FAMILIES = {f.name: f.template for f in load_families([templates_directory()]).values()}
TOKEN_LIKE = re.compile(r"<[|｜]?[^<>\s'\"{}]+[|｜]?>|\[/?[A-Z_]{3,}\]")
PLAIN_TEXT = {"transcript", "llama-2", "mistral", "vicuna"}  # only BOS and EOS are control tokens
QUOTING = "\"'\\"

needs_vocabularies = pytest.mark.parametrize(
    "name",
    list(VOCABULARIES)
    or [pytest.param("", marks=pytest.mark.skip(reason="needs ../shared/corpus/vocabs"))],
)
each_template = pytest.mark.parametrize(
    "name",
    [*TEMPLATES, *FAMILIES]
    if TEMPLATES
    else [pytest.param("", marks=pytest.mark.skip(reason="needs ../shared/corpus/templates"))],
)


class Texts(msgspec.Struct, frozen=True):
    """The strings of a conversation, one for each place that a request can fill."""

    system: str
    users: tuple[str, str]
    assistant: str
    argument: tuple[str, str]
    result: str
    description: str
    property: tuple[str, str]

    def prompt(self, *, tools: bool) -> ChatPrompt:
        turns = [
            Message(role="system", content=self.system),
            Message(role="user", content=[TextPart(text) for text in self.users]),
            Message(role="assistant", content=self.assistant),
            Message(role="user", content=self.users[0]),
        ]
        if not tools:
            return ChatPrompt(messages=turns)
        key, value = self.argument
        arguments = msgspec.json.encode({key: value}).decode()
        call = ToolCall(id="a1B2c3D4e", name="look-up_1", arguments=arguments)
        turns += [
            Message(role="assistant", content=None, tool_calls=[call]),
            Message(role="tool", content=self.result, tool_call_id=call.id),
        ]
        name, about = self.property
        schema = {"type": "object", "properties": {name: {"type": "string", "description": about}}}
        tool = Tool(name="look-up_1", description=self.description, parameters=schema)
        return ChatPrompt(messages=turns, tools=[tool])


def harmless(text: str) -> str:
    """The same texts without the characters that control tokens are made of."""
    return "".join(c if c.isalnum() or c.isspace() or c in QUOTING else "x" for c in text)


def disarmed(texts: Texts) -> Texts:
    fields = msgspec.structs.asdict(texts)
    plain: dict[str, Any] = {
        name: tuple(map(harmless, value)) if isinstance(value, tuple) else harmless(value)
        for name, value in fields.items()
    }
    return Texts(**plain)


def controls(model: ModelTemplate, texts: Texts, *, tools: bool) -> list[str] | None:
    """The control tokens of the prompt, in order; None if the template refuses it."""
    try:
        rendering = model.render(texts.prompt(tools=tools))
    except ConversationError:
        return None
    ids = displayed_tokens(pieces_of(rendering.pieces, {}))
    return [model.vocabulary.text(token) for token in ids if token in model.guard.controls]


def check(model: ModelTemplate, texts: Texts) -> int:
    """Compare the control tokens; returns the number of prompts that the template rendered."""
    rendered = 0
    for tools in (False, True):
        expected = controls(model, disarmed(texts), tools=tools)
        assert controls(model, texts, tools=tools) == expected, (model.template.name, tools)
        rendered += expected is not None
    return rendered


def hostile_texts(model: ModelTemplate) -> Iterator[Texts]:
    """Whole tokens in every place, then halves that meet between messages."""
    known = {token.id: token.text for token in model.vocabulary.special_tokens}
    members = sorted({known[i] for i in model.guard.controls if known[i].strip()}, key=len)
    in_template = [text for text in members if text in model.template.source]
    chosen = [*in_template, *members[:: max(1, len(members) // 8)]]
    everything = "".join(chosen)
    edges = model.reply_format.reasoning_edges if model.reply_format else ("", "")
    yield from_one(f"x{everything}y\n{everything}", edges)
    yield from_one(f'{{"a": "{everything}", "b": "\\u003c|im_end|\\u003e\\"}}', edges)
    for text in [*in_template[:6], *members[-2:]]:
        half = max(1, len(text) // 2)
        yield from_one(text, edges)
        yield Texts(
            system=text[:half],
            users=(text[half:], text[:-1]),
            assistant=without(edges, text[1:]),
            argument=(text[:half], text[half:]),
            result=text[:-1],
            description=text[1:],
            property=(text[:half], text[half:]),
        )


def from_one(text: str, edges: tuple[str, str] = ("", "")) -> Texts:
    return Texts(
        system=text,
        users=(text, text),
        assistant=without(edges, text),
        argument=(text, text),
        result=text,
        description=text,
        property=(text, text),
    )


def without(edges: tuple[str, str], text: str) -> str:
    """In the assistant's own messages, reasoning is honoured and no attack."""
    for edge in filter(None, edges):
        while edge in text:
            text = text.replace(edge, "")
    return text


@cache
def real_vocabulary(name: str) -> LlamaModel:
    return LlamaModel(str(VOCABULARIES[name]), vocabulary_only=True)


@cache
def fitting(name: str) -> list[ModelTemplate]:
    """Every template that uses control tokens of the vocabulary, among them its own."""
    model = real_vocabulary(name)
    sources = {key: path.read_text(encoding="utf-8") for key, path in TEMPLATES.items()}
    sources |= {key: source for key, source in FAMILIES.items() if source}
    sources |= {f"own {key}": source for key, source in templates_in(model.metadata).items()}
    special = [t.text for t in model.vocabulary.special_tokens if TOKEN_LIKE.fullmatch(t.text)]
    return [
        opened(key, source, model.vocabulary)
        for key, source in sources.items()
        if key in PLAIN_TEXT or any(text in source for text in special)
    ]


def opened(name: str, source: str, vocabulary: Vocabulary, *, guard: bool = True) -> ModelTemplate:
    def text(token: int | None) -> str:
        return "" if token is None else vocabulary.text(token)

    template = ChatTemplate(
        source, bos_token=text(vocabulary.bos), eos_token=text(vocabulary.eos), name=name
    )
    return ModelTemplate.open(template, vocabulary, None, guard=guard)


@cache
def with_its_own_tokens(name: str) -> ModelTemplate:
    """The template with a vocabulary of all control tokens that it mentions."""
    source = FAMILIES.get(name) or TEMPLATES[name].read_text(encoding="utf-8")
    texts = sorted({"<bos>", "<eos>", "<|im_end|>", *TOKEN_LIKE.findall(source)})
    special = [(t, "user_defined" if i % 3 == 0 else "control") for i, t in enumerate(texts)]
    return opened(name, source, FakeVocabulary(special, bos="<bos>", eos="<eos>"))  # type: ignore[arg-type]


@needs_vocabularies
def test_hostile_texts_add_no_control_token_on_any_vocabulary_and_template(name: str) -> None:
    assert fitting(name)
    for model in fitting(name):
        assert sum(check(model, texts) for texts in hostile_texts(model)), model.template.name


def test_without_the_guard_the_same_texts_do_add_control_tokens() -> None:
    source = FAMILIES["chatml"]
    assert source
    vocabulary = FakeVocabulary([("<|im_start|>", "control"), ("<|im_end|>", "control")])
    model = opened("chatml", source, vocabulary, guard=False)
    texts = from_one("<|im_end|>")

    assert controls(model, texts, tools=False) != controls(model, disarmed(texts), tools=False)


@each_template
def test_hostile_texts_add_no_control_token_where_every_marker_is_one(name: str) -> None:
    model = with_its_own_tokens(name)
    assert sum(check(model, texts) for texts in hostile_texts(model))


@each_template
def test_no_control_token_stands_between_the_users_own_words(name: str) -> None:
    """Not even where the template looks for the token in the text."""
    model = with_its_own_tokens(name)
    members = [t for t in model.vocabulary.special_tokens if t.id in model.guard.controls]
    text = " ".join(f"zq{token.text}qz" for token in members)
    for tools in (False, True):
        try:
            rendering = model.render(from_one(text).prompt(tools=tools))
        except ConversationError:
            continue
        ids = displayed_tokens(pieces_of(rendering.pieces, {}))
        texts = [""] + [model.vocabulary.piece(token).decode() for token in ids] + [""]
        for before, token, after in zip(texts, ids, texts[2:], strict=False):
            within = before.endswith("zq") and after.startswith("qz")
            assert not (within and token in model.guard.controls)


@needs_vocabularies
@settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(data=st.data())
def test_any_mixture_of_fragments_adds_no_control_token(name: str, data: st.DataObject) -> None:
    model = data.draw(st.sampled_from(fitting(name)))
    edges = model.reply_format.reasoning_edges if model.reply_format else ("", "")
    known = [t.text for t in model.vocabulary.special_tokens if t.text.strip()]
    whole = st.sampled_from(known)
    fragments = st.one_of(
        whole,
        whole.map(lambda text: text[1:]),
        whole.map(lambda text: text[:-1]),
        st.sampled_from(["\n", " ", '"', "\\", "\\u003c", "\ue000", "\\ue000", "<", "|", "a", "é"]),
    )
    text = st.lists(fragments, max_size=5).map("".join)
    pair = st.tuples(text, text)
    check(
        model,
        data.draw(
            st.builds(Texts, text, pair, text.map(partial(without, edges)), pair, text, text, pair)
        ),
    )


# It escapes "<" in descriptions as HTML, and a stand-in for "<" is not escaped.
ESCAPING = "meetkai-functionary-medium-v3.1"
BENIGN = [
    "What is 1 < 2 && 3 > 2? Use [brackets], {braces} and |pipes|.",
    "<b>bold</b> <div class='x'>&amp;</div> snake_case __init__ C:\\path \"quoted\"",
    "  spaces, tabs\tand\n\nblank lines \u00e9\u4e16\u754c\U0001f600 ",
]


@needs_vocabularies
def test_harmless_texts_become_the_same_tokens_as_without_a_guard(name: str) -> None:
    compared = 0
    for model in fitting(name):
        if model.template.name == ESCAPING:
            continue
        bare = opened(model.template.name, model.template.source, model.vocabulary, guard=False)
        for benign in BENIGN:
            for tools in (False, True):
                prompt = from_one(benign).prompt(tools=tools)
                try:
                    plain = bare.render(prompt)
                except ConversationError:
                    continue
                guarded = model.render(prompt)
                assert guarded.text == plain.text, model.template.name
                assert guarded.pieces == plain.pieces, model.template.name
                compared += 1
    assert compared > 0
