"""The base of all dialects: reading, writing, and a grammar."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from server.core.reply_format import Calls
from server.core.request import Constraint, Tool
from server.grammar.lark import Grammar
from server.reply.source import Source, Steps, Write
from server.reply.tool_schema import Arguments


class Dialect(ABC):
    """The language in which a family writes the arguments of a call.

    An instance serves one call syntax and has no state of its own. `read` turns back into the same
    object what `write` writes, and reads every text that `grammar` allows as arguments that match
    the schema.

    Args:
        calls: The family's call syntax.

    Attributes:
        markers: Texts of the dialect itself that a vocabulary may hold as control tokens.

    Raises:
        ValueError: The call syntax lacks something that the dialect needs.
    """

    markers: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def __init__(self, calls: Calls) -> None: ...

    @abstractmethod
    def read(self, source: Source, write: Write, tool: Tool | None) -> Steps[None]:
        """Read the arguments of one call and pass them on as JSON while they arrive.

        Args:
            source: The reply, before the white space in front of the arguments; afterwards, behind
                the arguments.
            write: Takes the next piece of the JSON text of one object.
            tool: The tool that is called; None if the request has none of that name.

        Raises:
            NotACall: The text does not follow the dialect. Where nothing has been written yet, the
                text is no call at all.
            EndOfReply: The reply ends inside the arguments.
        """

    @abstractmethod
    def write(self, arguments: str) -> str:
        """Write arguments as the family does.

        Args:
            arguments: The JSON text of an object.

        Returns:
            The text for ``{arguments}`` in the family's pattern of a call.
        """

    @abstractmethod
    def grammar(self, arguments: Arguments, grammar: Grammar) -> str:
        """Hold arguments to their schema.

        Args:
            arguments: The arguments; what the dialect cannot enforce goes to their leniency.
            grammar: Takes the rules that the arguments need.

        Returns:
            The arguments as an expression in Lark.

        Raises:
            InvalidConstraint: The dialect cannot enforce the schema, which is strict, or no object
                can match it.
        """

    @abstractmethod
    def free_form(self, name: str, text: Constraint, grammar: Grammar) -> str:
        """Hold the one argument of a free-form tool to the tool's own grammar.

        Args:
            name: The argument's name.
            text: What its value must match.
            grammar: Takes the rules that the arguments need.

        Returns:
            The arguments as an expression in Lark.

        Raises:
            Untranslatable: The grammar holds something that the dialect cannot enforce.
        """
