"""The tables of docs/models.md: every cell is the result of rendering a conversation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path

from server.core.errors import ConversationError
from server.core.request import ChatPrompt, Message, TextPart, ToolCall
from server.core.resources import templates_directory
from server.prompt.families.definitions import load_families
from server.prompt.known_template import KnownTemplate
from server.prompt.messages.probing_conversations import (
    ASSISTANT,
    CALLS,
    DESCRIPTION,
    KEY,
    NAME,
    NAME2,
    REASONING,
    RESULT,
    RESULT2,
    SYSTEM,
    TOOL,
    USER,
    USER2,
    VALUE,
    VALUE2,
)
from server.prompt.template.chat_template import ChatTemplate
from server.reply.parser import parse_reply

CORPUS = Path(__file__).parents[2] / "shared" / "corpus" / "templates"
"""Published templates. They are not part of the repository; without them their table stays."""

NATIVE, REWRITTEN, FORCED, REPLIES, NO = "native", "rewritten", "if forced", "replies", "–"
LEGEND = {
    NATIVE: "the template expresses it in the form that the model was trained on",
    REWRITTEN: "the template does not, so it is said another way; all of it reaches the model",
    FORCED: "only if `tool_choice` asks for a call, because the answer is then constrained to one",
    REPLIES: "found in replies; the template leaves it out of past messages",
    NO: "answered with 400 and the reason; for reasoning: replies have none",
}

_USER = Message(role="user", content=USER)


def _answer(call: ToolCall, text: str) -> Message:
    return Message(role="tool", content=text, tool_call_id=call.id)


def _calling(count: int) -> Message:
    return Message(role="assistant", tool_calls=CALLS[:count])


def _shows(known: KnownTemplate, prompt: ChatPrompt, *texts: str) -> bool:
    """Whether each of ``texts`` reaches the native prompt."""
    try:
        rendered = known.text(prompt)
    except ConversationError:
        return False
    return all(text in rendered for text in texts)


def _cell(known: KnownTemplate, capability: str, prompt: ChatPrompt, *texts: str) -> str:
    """How ``texts`` reach the prompt: natively, said another way, or not at all."""
    if not _shows(known, prompt, *texts):
        return NO
    return NATIVE if getattr(known.capabilities, capability) else REWRITTEN


def _first_message(role: str, capability: str) -> Callable[[KnownTemplate], str]:
    message = Message(role=role, content=SYSTEM)  # type: ignore[arg-type]
    prompt = ChatPrompt(messages=[message, _USER])
    return lambda known: _cell(known, capability, prompt, SYSTEM, USER)


def _tools(known: KnownTemplate) -> str:
    """Tools count only if calls are found in replies."""
    if known.reply_format is None or known.reply_format.calls is None:
        return NO
    prompt = ChatPrompt(messages=[_USER], tools=[TOOL])
    return _cell(known, "tools", prompt, NAME, DESCRIPTION, KEY, USER)


def _parallel(known: KnownTemplate) -> str:
    results = list(map(_answer, CALLS, (RESULT, RESULT2)))
    prompt = ChatPrompt(messages=[_USER, _calling(2), *results], tools=[TOOL])
    texts = (NAME, NAME2, VALUE, VALUE2, RESULT, RESULT2)
    return _cell(known, "parallel_calls", prompt, *texts)


def _results(known: KnownTemplate) -> str:
    prompt = ChatPrompt(messages=[_USER, _calling(1), _answer(CALLS[0], RESULT)])
    return _cell(known, "tool_results", prompt, NAME, VALUE, RESULT)


def _reasoning(known: KnownTemplate) -> str:
    """Whether reasoning is found in replies, and shown to the model when it is sent back."""
    reply_format = known.reply_format
    if reply_format is None:
        return NO
    if channels := reply_format.channels:
        begin, end = f"{channels.start[-1]}{channels.reasoning}{channels.message}", channels.end[0]
    else:
        begin, end = reply_format.reasoning_edges
    said = parse_reply(f"{begin}{REASONING}{end}", reply_format, tools_active=False)
    if said.reasoning_content != REASONING:
        return NO
    return NATIVE if known.capabilities.reasoning else REPLIES


def _parts(known: KnownTemplate) -> str:
    prompt = ChatPrompt(messages=[Message(role="user", content=[TextPart(USER), TextPart(USER2)])])
    return _cell(known, "content_parts", prompt, USER, USER2)


def _continuation(known: KnownTemplate) -> str:
    prompt = ChatPrompt(
        messages=[_USER, Message(role="assistant", content=ASSISTANT)],
        add_generation_prompt=False,
        continue_final_message=True,
    )
    try:
        return NATIVE if known.text(prompt).endswith(ASSISTANT) else NO
    except ConversationError:
        return NO


COLUMNS: dict[str, Callable[[KnownTemplate], str]] = {
    "system": _first_message("system", "system_role"),
    "developer": _first_message("developer", "developer_role"),
    "tools": _tools,
    "parallel calls": _parallel,
    "results": _results,
    "reasoning": _reasoning,
    "parts": _parts,
    "continuation": _continuation,
}


def _table(first_column: str, rows: Iterable[tuple[str, list[str]]]) -> str:
    columns = [first_column, *COLUMNS]
    lines = [columns, ["---"] * len(columns), *([name, *cells] for name, cells in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cells(known: KnownTemplate) -> list[str]:
    return [cell(known) for cell in COLUMNS.values()]


def legend() -> str:
    """The meanings of the words in the cells."""
    return "\n".join(f"- **{word}**: {meaning}." for word, meaning in LEGEND.items())


def families_table() -> str:
    """Every family of ``templates/`` and what its own template can express."""

    def rows() -> Iterator[tuple[str, list[str]]]:
        for name, family in sorted(load_families([templates_directory()]).items()):
            assert family.template is not None
            known = KnownTemplate.learn(ChatTemplate(family.template), family)
            cells = dict(zip(COLUMNS, _cells(known), strict=True))
            if not family.tools:
                cells["tools"] = FORCED
            yield f"[{name}](../templates/{name}.toml)", list(cells.values())

    return _table("Family", rows())


@cache
def published_table() -> str:
    """Every published template of the corpus and what it can express."""

    def rows() -> Iterator[tuple[str, list[str]]]:
        for path in sorted(CORPUS.glob("*.jinja"), key=lambda path: path.stem.lower()):
            source = path.read_text(encoding="utf-8")
            yield path.stem, _cells(KnownTemplate.learn(ChatTemplate(source), None))

    return _table("Template", rows())
