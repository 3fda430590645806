"""The grammar that an answer must follow, and what of the request's schemas it does not hold.

A tool or format that the compiler refuses gets a weaker grammar, unless it is strict, so that one
bad tool never takes the others with it.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

import msgspec

from server.core.errors import InvalidConstraint, Locator, path_text
from server.core.request import ChatPrompt, Constraint, Prompt, Tool, ToolChoice
from server.engine.sampling.compiler_on_demand import CompilerOnDemand
from server.engine.sampling.matcher import GrammarError, GrammarMatcher
from server.grammar.conversion import enforced_grammar, to_grammar
from server.grammar.free_text import text_grammar
from server.grammar.leniency import NOT_WEAKENED, WEAKEST, Leniency, Weakness, Weaknesses
from server.grammar.pattern_classes import Untranslatable
from server.prompt.chat_model import ChatModel
from server.reply.grammar import ReplyGrammar
from server.reply.tool_schema import arguments_of, unenforceable, ungrammatical
from server.worker.serve.weakening import is_unsatisfiable, next_level, next_weakness, told

# For trying out all tools of a request, while other requests wait. Usual schemas take a few
# milliseconds each, so 128 of them stay far below it.
_TOOLS_SECONDS = 5.0
# Choices: more requests, and more tools, than clients of one model use in turns.
_MOST_REQUESTS = 64
_MOST_TOOLS = 1024
# Places of one schema that are tried one by one; a choice, as a trial takes some milliseconds.
_MOST_PLACES = 16

_ALONE = ToolChoice(mode="required", parallel=False)

Known = TypeVar("Known")


class Constrained(NamedTuple):
    """A matcher at the beginning of an answer, and the places of what it does not enforce."""

    matcher: GrammarMatcher
    loosened: list[Locator]


class Constrainer:
    """Makes the grammars of one model's answers. Not thread-safe.

    Args:
        chat: The model's prompts and replies.
        compiler: The compiler of its grammars, built with the first of them at the latest.
    """

    def __init__(self, chat: ChatModel, compiler: CompilerOnDemand) -> None:
        self._chat = chat
        self._compiler = compiler
        self._grammars: OrderedDict[bytes, ReplyGrammar | None] = OrderedDict()
        self._weaknesses: OrderedDict[bytes, Weakness] = OrderedDict()

    def constrain(
        self,
        prompt: Prompt,
        reply_prefix: str,
        constraint: Constraint | None,
        still_wanted: Callable[[], None],
    ) -> Constrained | None:
        """The start of the grammar for an answer; None: it may be anything.

        Args:
            prompt: The prompt, in the terms of a model, which knows no free-form tools.
            reply_prefix: The end of the prompt that belongs to the reply.
            constraint: The request's own constraint, which holds for the content alone.
            still_wanted: Called between long steps; it raises if the request was cancelled.

        Raises:
            InvalidConstraint: A schema or grammar is malformed, nothing can match it, or it is
                strict and cannot be enforced.
        """
        tools: Sequence[Tool] = ()
        if isinstance(prompt, ChatPrompt) and prompt.tool_choice.mode != "none":
            tools = prompt.tools
        if not tools and constraint is None:
            return None
        choice = prompt.tool_choice if isinstance(prompt, ChatPrompt) else None
        key = msgspec.msgpack.encode((tools, choice, constraint, reply_prefix))
        if key not in self._grammars:
            made = self._made(prompt, tools, reply_prefix, constraint, still_wanted)
            _remember(self._grammars, key, made, _MOST_REQUESTS)
        self._grammars.move_to_end(key)
        grammar = self._grammars[key]
        if grammar is None:
            return None
        compiler = self._compiler.get()
        try:
            matcher = compiler.cached(grammar.text) or compiler.compile(grammar.text)
        except GrammarError as error:  # it compiled before
            raise InvalidConstraint(str(error), at=_place(constraint)) from error
        return Constrained(matcher, grammar.loosened)

    def _made(
        self,
        prompt: Prompt,
        tools: Sequence[Tool],
        reply_prefix: str,
        constraint: Constraint | None,
        still_wanted: Callable[[], None],
    ) -> ReplyGrammar | None:
        content, loosened = self._content(constraint) if constraint else (None, [])
        weaknesses = self._trials(tools, still_wanted)
        while True:
            still_wanted()
            made = self._chat.reply_grammar(prompt, reply_prefix, content, weaknesses)
            if made is None:
                return None
            try:
                self._compiler.get().compile(made.text)
            except GrammarError as error:
                # Each schema compiles by itself; together, or in this call syntax, they do not.
                weaker = self._weaker(prompt, tools, weaknesses)
                if weaker is None:
                    raise InvalidConstraint(str(error), at=_place(constraint)) from error
                weaknesses = weaker
            else:
                return ReplyGrammar(made.text, [*loosened, *made.loosened])

    def _weaker(
        self, prompt: Prompt, tools: Sequence[Tool], weaknesses: Weaknesses
    ) -> dict[str, Weakness] | None:
        """How weak to make the tools next: those that do not compile alone, else all.

        None: none can be made weaker.
        """
        known = {tool.name: weaknesses.get(tool.name, NOT_WEAKENED) for tool in tools}
        lenient = [tool for tool in tools if not tool.strict and known[tool.name].level < WEAKEST]
        if not lenient:
            return None
        refused = [tool for tool in lenient if not self._compiles(prompt, tool, known[tool.name])]
        next_ones = {
            tool.name: self._next_in_dialect(prompt, tool, known[tool.name]) for tool in refused
        } or {tool.name: next_level(known[tool.name]) for tool in lenient}
        return {**weaknesses, **next_ones}

    def _compiles(self, prompt: Prompt, tool: Tool, weakness: Weakness) -> bool:
        """Whether calls of one tool compile in the model's call syntax."""
        assert isinstance(prompt, ChatPrompt)
        alone = msgspec.structs.replace(prompt, tools=[tool], tool_choice=_ALONE)
        made = self._chat.reply_grammar(alone, "", None, {tool.name: weakness})
        try:
            self._compiler.get().try_out(made.text if made else "")
        except GrammarError:
            return False
        return True

    def _next_in_dialect(self, prompt: Prompt, tool: Tool, weakness: Weakness) -> Weakness:
        """The next weakness of a tool that does not compile in the model's call syntax.

        Where one place of the schema is to blame, only that is given up.
        """
        if weakness == NOT_WEAKENED:
            doubtful = arguments_of(tool, 0).leniency.doubtful
            for place in list(doubtful)[:_MOST_PLACES]:
                candidate = Weakness(places=frozenset({place}))
                if self._compiles(prompt, tool, candidate):
                    return candidate
        return next_level(weakness)

    def _content(self, constraint: Constraint) -> tuple[str, list[Locator]]:
        """The strongest grammar for the content that compiles, and what it does not hold."""
        compiler = self._compiler.get()
        deadline = time.monotonic() + _TOOLS_SECONDS
        refused = None
        weakness = NOT_WEAKENED
        while weakness.level <= WEAKEST:
            leniency = Leniency(strict=constraint.strict and not refused, weakness=weakness)
            try:
                grammar = to_grammar(constraint, leniency)
                compiler.try_out(grammar)
            except InvalidConstraint as error:
                raise error.moved(("constraint",)) from error
            except GrammarError as error:
                refused = refused or error
                if constraint.kind != "json_schema" or is_unsatisfiable(error):
                    raise InvalidConstraint(told(error), at=("constraint",)) from error
                weakness = next_weakness(leniency, compiler, deadline)
                continue
            if refused and constraint.strict:
                raise InvalidConstraint(
                    _refusal("The JSON Schema", leniency.loosened), at=("constraint",)
                ) from refused
            return grammar, [("constraint", "schema", *path) for path in leniency.loosened]
        raise InvalidConstraint(str(refused), at=("constraint",))

    def _trials(
        self, tools: Sequence[Tool], still_wanted: Callable[[], None]
    ) -> dict[str, Weakness]:
        """How weak the tools must be made to compile, by name, for those that do not as they are.

        Tools that time is short for are made as weak as can be.
        """
        weaknesses = {}
        deadline = time.monotonic() + _TOOLS_SECONDS
        for index, tool in enumerate(tools):
            still_wanted()
            key = msgspec.msgpack.encode((tool.parameters, tool.strict, tool.grammar))
            weakness = self._weaknesses.get(key)
            if weakness is None:
                weakness = self._weakness(tool, index, deadline)
                if weakness.level < WEAKEST:
                    _remember(self._weaknesses, key, weakness, _MOST_TOOLS)
            if weakness != NOT_WEAKENED:
                weaknesses[tool.name] = weakness
        return weaknesses

    def _weakness(self, tool: Tool, index: int, deadline: float) -> Weakness:
        compiler = self._compiler.get()
        refused = None
        if tool.grammar is not None:
            try:
                compiler.try_out(text_grammar(tool.grammar))
            except (GrammarError, Untranslatable) as error:
                raise ungrammatical(tool, index, str(error)) from error
            return NOT_WEAKENED
        weakness = NOT_WEAKENED
        while weakness.level < WEAKEST:
            if time.monotonic() > deadline:
                if tool.strict:
                    reason = "The tools before it took too long to compile."
                    raise unenforceable(tool, index, reason) from refused
                return Weakness(WEAKEST)
            lenient = msgspec.structs.replace(tool, strict=False) if refused else tool
            arguments = arguments_of(lenient, index, weakness)
            try:
                compiler.try_out(enforced_grammar(arguments.schema))
            except GrammarError as error:
                refused = refused or error
                if is_unsatisfiable(error):
                    raise unenforceable(tool, index, told(error)) from error
                weakness = next_weakness(arguments.leniency, compiler, deadline)
                continue
            if refused and tool.strict:
                reason = _refusal("Its schema", arguments.leniency.loosened)
                raise unenforceable(tool, index, reason) from refused
            return weakness
        if tool.strict:
            raise unenforceable(tool, index, _refusal("Its schema", [])) from refused
        return weakness


def _remember(known: OrderedDict[bytes, Known], key: bytes, value: Known, most: int) -> None:
    known[key] = value
    if len(known) > most:
        known.popitem(last=False)


def _place(constraint: Constraint | None) -> Locator:
    return ("constraint",) if constraint else ("tools",)


def _refusal(what: str, loosened: Sequence[Locator]) -> str:
    """Why a strict schema is refused that compiles without the keywords at ``loosened``."""
    if not loosened or not loosened[0]:
        return f"{what} takes too long to compile, or combines keywords in too many ways."
    places = ", ".join(path_text(path) for path in loosened[:3])
    more = f" and {len(loosened) - 3} more places" if len(loosened) > 3 else ""
    return f"{what} cannot be compiled with the keywords at {places}{more}."
