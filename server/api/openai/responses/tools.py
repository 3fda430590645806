"""The tools of a request under the names that the model sees, and the way back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import msgspec

from server.api.openai.responses.schemas import tools as wire
from server.api.openai.responses.schemas.lenient import unknown_fields
from server.api.tool_names import DistinctNames, usual_name
from server.core.errors import InvalidRequest, Locator, path_text
from server.core.request import Constraint, Tool, ToolChoice


class WireName(NamedTuple):
    """A tool's name in the request, where each namespace has names of its own."""

    name: str
    namespace: str | None = None

    @property
    def flat(self) -> str:
        """One name made of both, of the characters and the length that all models can write."""
        name = self.name
        if self.namespace is not None:
            joint = "" if self.namespace.endswith("__") else "__"
            name = f"{self.namespace}{joint}{self.name}"
        return usual_name(name)


class Toolbox:
    """All tools that a request offers.

    Attributes:
        tools: The tools, under names that are unique.
        places: Where the request has each of ``tools``.
        echoed: The offered tools as the request wrote them, for the answer.
        ignored: Paths of tools, and of their fields, that have no effect.
    """

    def __init__(self) -> None:
        self.tools: list[Tool] = []
        self.places: list[Locator] = []
        self.echoed: list[wire.FunctionTool | wire.CustomTool | wire.NamespaceTool] = []
        self.ignored: list[str] = []
        self._offered: dict[WireName, str] = {}
        self._wire_names: dict[str, WireName] = {}
        self._distinct = DistinctNames()
        self._dropped = False

    def add(self, tools: Sequence[wire.AnyTool], at: Locator) -> None:
        """Offer ``tools``, which the request has at ``at``; of two of one name the first stays."""
        for index, tool in enumerate(tools):
            place = (*at, index)
            match tool:
                case wire.FunctionTool() | wire.CustomTool():
                    if self._add(tool, WireName(tool.name), place):
                        self.echoed.append(tool)
                case wire.NamespaceTool():
                    if self._add_namespace(tool, place):
                        self.echoed.append(tool)
                case wire.OtherTool():
                    self._drop(tool, place)

    def offered(self, name: WireName) -> str:
        """The name that the model sees for a tool, offered in this request or not."""
        return self._offered.get(name, name.flat)

    def wire_name(self, offered: str) -> WireName:
        """The request's name for the tool that the model calls ``offered``."""
        return self._wire_names.get(offered, WireName(offered))

    def choose(self, choice: wire.Choice | None, *, parallel: bool) -> ToolChoice:
        """How the model must use the tools; those that are not allowed are offered no longer.

        Raises InvalidRequest where ``choice`` names a tool that is not there.
        """
        match choice:
            case "none" | "auto" | "required":
                return self._mode(choice, parallel)
            case wire.NamedChoice():
                name = self._known(WireName(choice.name, choice.namespace))
                return ToolChoice(mode="named", name=name, parallel=parallel)
            case wire.AllowedChoice():
                self._allow(choice.tools)
                return self._mode(choice.mode, parallel)
            case wire.OtherChoice():
                self.ignored.append(f"tool_choice ({choice.type})")
        return ToolChoice(parallel=parallel)

    def _mode(self, mode: wire.Mode, parallel: bool) -> ToolChoice:
        if mode == "required" and not self.tools:
            if not self._dropped:
                raise InvalidRequest("tool_choice: there are no tools.", at=("tool_choice",))
            self.ignored.append("tool_choice")
            mode = "auto"
        return ToolChoice(mode=mode, parallel=parallel)

    def _add_namespace(self, space: wire.NamespaceTool, at: Locator) -> bool:
        self._name_unknown(space, at)
        described = space.description
        added = False
        for index, tool in enumerate(space.tools):
            place = (*at, "tools", index)
            if isinstance(tool, wire.OtherTool):
                self._drop(tool, place)
            elif self._add(tool, WireName(tool.name, space.name), place, described):
                # The model reads about the namespace once, with the first of its tools.
                described = None
                added = True
        return added

    def _add(
        self,
        tool: wire.FunctionTool | wire.CustomTool,
        name: WireName,
        at: Locator,
        namespace_description: str | None = None,
    ) -> bool:
        if name in self._offered:
            self.ignored.append(path_text(at))
            return False
        offered = self._distinct.of(name.flat)
        self._offered[name] = offered
        self._wire_names[offered] = name
        self._name_unknown(tool, at)
        canonical = _canonical(tool, offered)
        if namespace_description:
            lines = (namespace_description, canonical.description)
            description = "\n\n".join(line for line in lines if line)
            canonical = msgspec.structs.replace(canonical, description=description)
        self.tools.append(canonical)
        self.places.append(at)
        return True

    def _drop(self, tool: wire.OtherTool, at: Locator) -> None:
        self._dropped = True
        self.ignored.append(f"{path_text(at)} ({tool.type})")

    def _name_unknown(self, tool: wire.Described, at: Locator) -> None:
        self.ignored += [f"{path_text(at)}.{name}" for name in unknown_fields(tool)]

    def _allow(self, tools: Sequence[wire.AllowedTool]) -> None:
        allowed = set(self._allowed(tools))
        kept = [
            (tool, place)
            for tool, place in zip(self.tools, self.places, strict=True)
            if tool.name in allowed
        ]
        self.tools = [tool for tool, _ in kept]
        self.places = [place for _, place in kept]

    def _allowed(self, tools: Sequence[wire.AllowedTool]) -> Iterator[str]:
        for index, tool in enumerate(tools):
            if tool.type in {"function", "custom"} and tool.name is not None:
                yield self._known(WireName(tool.name, tool.namespace))
                continue
            inside = [
                offered
                for name, offered in self._offered.items()
                if tool.type == "namespace" and tool.name and name.namespace == tool.name
            ]
            yield from inside
            if not inside:
                self._dropped = True
                self.ignored.append(f"tool_choice.tools[{index}] ({tool.type})")

    def _known(self, name: WireName) -> str:
        if name not in self._offered:
            raise InvalidRequest(
                f"tool_choice: there is no tool {name.name[:100]}.", at=("tool_choice",)
            )
        return self._offered[name]


def _canonical(tool: wire.FunctionTool | wire.CustomTool, offered: str) -> Tool:
    if isinstance(tool, wire.FunctionTool):
        return Tool(
            name=offered,
            description=tool.description,
            parameters=tool.parameters,
            strict=bool(tool.strict),
        )
    grammar = None
    if isinstance(tool.format, wire.GrammarInput):
        grammar = Constraint(kind=tool.format.syntax, body=tool.format.definition)
    return Tool(name=offered, description=tool.description, kind="custom", grammar=grammar)
