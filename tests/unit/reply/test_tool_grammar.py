"""Tool calls under a grammar: whatever it lets through is read back as valid calls."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import jsonschema
import pytest
from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper

from server.core.reply_format import ReplyFormat
from server.core.request import Message, Tool, ToolChoice
from server.core.vocabulary import SpecialToken
from server.grammar.lark import Spelling
from server.reply.builtin_formats import builtin_format, builtin_tables
from server.reply.control_tokens import control_tokens
from server.reply.dialects.gemma import QUOTE
from server.reply.grammar import reply_grammar
from server.reply.parser import parse_reply
from tests.unit.engine.byte_vocabulary import END, byte_tokenizer
from tests.unit.fake_vocabulary import FakeVocabulary
from tests.unit.reply.replies import trigger

pytestmark = pytest.mark.process  # for the time that the walks through all grammars take

TOKENIZER = byte_tokenizer()
SPELLING = Spelling(FakeVocabulary())
VALIDATOR = jsonschema.Draft202012Validator
MOST_BYTES = 3000

PREFIXES = {"gpt-oss": "<|start|>assistant", "muse": "<|start|>assistant", "functionary-3_2": ">>>"}
FORMATS = [pytest.param(builtin_format(name), id=name) for name in builtin_tables()]


def tool(name: str, properties: dict[str, Any], *required: str, **schema: Any) -> Tool:
    parameters = {"type": "object", "properties": properties, "required": list(required), **schema}
    return Tool(name=name, parameters=parameters)


PLACE = {"type": "object", "properties": {"x": {"type": "integer"}, "tag": {"type": "string"}}}
TOOLS = [
    tool("nothing", {}),
    tool(
        "get",
        {
            "city": {"type": "string"},
            "days": {"type": "integer", "minimum": 1, "maximum": 14},
            "exact": {"type": "boolean"},
            "unit": {"enum": ["C", "F"]},
        },
        "city",
        "unit",
    ),
    tool(
        "get_more",
        {
            "maybe": {"anyOf": [{"type": "string"}, {"type": "null"}]},
            "either": {"type": ["string", "integer"]},
            "any": {},
            "code": {"type": "string", "pattern": "^[A-Z]{2}/[0-9]+$|x"},
            "short": {"type": "string", "minLength": 2, "maxLength": 4},
            "when": {"type": "string", "format": "date-time"},
            "mixed": {"enum": ["a", 1, None, "true"]},
            "place": {"$ref": "#/$defs/place"},
            "places": {"type": "array", "items": {"$ref": "#/$defs/place"}, "maxItems": 2},
            "number": {"type": "number"},
        },
        "code",
        "mixed",
        **{"$defs": {"place": PLACE}},
    ),
]


def grammar_for(reply_format: ReplyFormat, **options: Any) -> str:
    settings: dict[str, Any] = {
        "prefix": PREFIXES.get(reply_format.name, ""),
        "tools": TOOLS,
        "choice": ToolChoice(mode="required"),
        "content": None,
        "spelling": SPELLING,
    }
    made = reply_grammar(reply_format, **(settings | options))
    assert made is not None
    return made.text


class Controls(FakeVocabulary):
    """A vocabulary of bytes, an end, and control tokens."""

    def __init__(self, texts: Sequence[str]) -> None:
        super().__init__()
        self.special_tokens = [
            SpecialToken(END + 1 + number, text, "control") for number, text in enumerate(texts)
        ]
        self.by_id = {token.id: token.text for token in self.special_tokens}

    def is_end_of_generation(self, token: int) -> bool:
        return token == END

    def tokenizer(self) -> LLTokenizer:
        class Wrapped:
            eos_token_id = END
            bos_token_id = None
            tokens = (
                *(bytes([value]) for value in range(256)),
                b"\xff<end>",
                *(b"\xff" + text.encode() for text in self.by_id.values()),
            )
            special_token_ids = (END, *self.by_id)

            def __call__(self, text: str | bytes) -> list[int]:
                return list(text.encode() if isinstance(text, str) else text)

        return LLTokenizer(TokenizerWrapper(Wrapped()), slices=[])


def matcher(grammar: str, tokenizer: LLTokenizer = TOKENIZER) -> LLMatcher:
    limits = LLParserLimits(verbose_errors=False)
    subject = LLMatcher(tokenizer, grammar, limits=limits, log_level=0)
    assert not subject.is_error(), subject.get_error()
    return subject


def closings(reply_format: ReplyFormat) -> list[str]:
    """Texts by which a walk leaves text that could go on for ever, or opens a call."""
    calls = reply_format.calls
    assert calls
    found = [reply_format.reasoning_edges[1], calls.begin, trigger(reply_format), QUOTE]
    found.append(calls.argument.partition("{value}")[2])
    if trigger(reply_format) == "{":
        # An object alone is a call only if it begins like one.
        found.insert(0, calls.call.replace("{name}", "get").partition("{arguments}")[0])
    if reply_format.channels:
        found += [end + PREFIXES[reply_format.name] for end in (*reply_format.channels.end[:1], "")]
    return [text for text in found if text]


def tokens_of(text: str, controls: Mapping[int, str]) -> list[int]:
    """The control tokens in ``text``, and the bytes between them."""
    tokens: list[int] = []
    while text:
        found = [token for token, control in controls.items() if text.startswith(control)]
        tokens += found[:1] or text[0].encode()
        text = text[len(controls[found[0]]) if found else 1 :]
    return tokens


def walk(
    subject: LLMatcher,
    choose: random.Random,
    shortcuts: Sequence[str] = (),
    controls: Mapping[int, str] = MappingProxyType({}),
) -> str | None:
    """A random way through the grammar; None where it takes too long."""
    subject = subject.deep_copy()
    written = bytearray()
    while not subject.is_stopped():
        for shortcut in shortcuts:
            path = tokens_of(shortcut, controls)
            # A text may end at any time, so the walk soon takes a way out of it.
            likely = 0.1 if written else 0.5
            if choose.random() < likely and subject.validate_tokens(path) == len(path):
                assert subject.consume_tokens(path)
                written += shortcut.encode()
        mask = int.from_bytes(subject.compute_bitmask(), "little")
        possible = [token for token in (10, *range(32, 127), *controls) if mask >> token & 1]
        possible = possible or [byte for byte in range(256) if mask >> byte & 1]
        ends = bool(mask >> END & 1)
        if not possible or (ends and choose.random() < 0.3):
            assert ends or subject.is_stopped(), written
            break
        if len(written) > MOST_BYTES:
            return None
        closing = [token for token in possible if token > 255 or chr(token) in "<>[]{}()/'\"\n|,"]
        token = choose.choice(closing if closing and choose.random() < 0.5 else possible)
        assert subject.consume_token(token)
        written += controls[token].encode() if token in controls else bytes([token])
    return written.decode()


def parsed(text: str, reply_format: ReplyFormat, prefix: str | None = None) -> Message:
    before = PREFIXES.get(reply_format.name, "") if prefix is None else prefix
    return parse_reply(text, reply_format, prefix=before, tools_active=True, tools=TOOLS)


def check(message: Message) -> None:
    by_name = {tool.name: tool for tool in TOOLS}
    for call in message.tool_calls:
        validator = VALIDATOR(
            by_name[call.name].parameters, format_checker=VALIDATOR.FORMAT_CHECKER
        )
        validator.validate(json.loads(call.arguments))
        assert call.id


def some_walks(
    grammar: str,
    reply_format: ReplyFormat,
    *,
    prefix: str | None = None,
    controls: Controls | None = None,
    count: int = 12,
) -> Iterator[tuple[str, Message]]:
    subject = matcher(grammar, controls.tokenizer() if controls else TOKENIZER)
    texts: Mapping[int, str] = controls.by_id if controls else {}
    finished = 0
    for seed in range(4 * count):
        text = walk(subject, random.Random(seed), closings(reply_format), texts)
        if text is not None:
            finished += 1
            yield text, parsed(text, reply_format, prefix)
        if finished == count:
            return
    pytest.fail(f"only {finished} walks came to an end")


@pytest.mark.parametrize("reply_format", FORMATS)
def test_what_a_required_call_can_be_is_always_read_back_as_valid_calls(
    reply_format: ReplyFormat,
) -> None:
    for _, message in some_walks(grammar_for(reply_format), reply_format):
        check(message)
        assert message.tool_calls
        assert not message.content


@pytest.mark.parametrize("reply_format", FORMATS)
def test_the_same_holds_where_the_syntax_is_made_of_control_tokens(
    reply_format: ReplyFormat,
) -> None:
    controls = Controls(sorted(control_tokens(reply_format)))
    grammar = grammar_for(reply_format, spelling=Spelling(controls))
    for _, message in some_walks(grammar, reply_format, controls=controls):
        check(message)
        assert message.tool_calls
        assert not message.content


@pytest.mark.parametrize("reply_format", FORMATS)
def test_whatever_a_free_reply_calls_is_valid(reply_format: ReplyFormat) -> None:
    grammar = grammar_for(reply_format, choice=ToolChoice())
    made = 0
    for _, message in some_walks(grammar, reply_format):
        check(message)
        made += len(message.tool_calls)
    assert made > 0


@pytest.mark.parametrize("reply_format", FORMATS)
def test_whatever_a_free_reply_of_control_tokens_calls_is_valid(reply_format: ReplyFormat) -> None:
    controls = Controls(sorted(control_tokens(reply_format)))
    grammar = grammar_for(reply_format, choice=ToolChoice(), spelling=Spelling(controls))
    made = 0
    for _, message in some_walks(grammar, reply_format, controls=controls):
        check(message)
        made += len(message.tool_calls)
    assert made > 0


@pytest.mark.parametrize("reply_format", FORMATS)
def test_a_named_tool_is_called_and_once_where_calls_are_not_parallel(
    reply_format: ReplyFormat,
) -> None:
    choice = ToolChoice(mode="named", name="get", parallel=False)
    for _, message in some_walks(grammar_for(reply_format, choice=choice), reply_format, count=5):
        check(message)
        assert [call.name for call in message.tool_calls] == ["get"]
