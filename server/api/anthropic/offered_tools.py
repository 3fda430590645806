"""The tools of a request: those of its body, and what the conversation changed of them."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import NamedTuple

from server.api.anthropic.schemas import blocks
from server.api.anthropic.schemas import messages_request as wire
from server.api.anthropic.schemas.tools import (
    FunctionTool,
    HostedTool,
    OtherChoice,
    ToolChoice,
)
from server.core import request as core
from server.core.errors import InvalidRequest, Locator


class ToolChanges:
    """What a conversation says about tools; of what it says about one, the last counts.

    Attributes:
        offered: Whether the tool of each name is offered.
        defined: Tools that the conversation brings, by name, with their places in the body.
    """

    def __init__(self) -> None:
        self.offered: dict[str, bool] = {}
        self.defined: dict[str, tuple[FunctionTool, Locator]] = {}

    def load(self, content: str | Iterable[object]) -> None:
        """Offer the tools that the parts of a result's ``content`` refer to."""
        for part in () if isinstance(content, str) else content:
            if isinstance(part, blocks.ToolReferenceBlock):
                self.offered[part.tool_name] = True

    def change(self, block: blocks.ToolChangeBlock, at: Locator) -> bool:
        """Do what ``block``, which the body has ``at``, says; False if it is about no function."""
        added, tool = block.type == "tool_addition", block.tool
        # Those of MCP's servers have references of their own, and may have the name of a function.
        name = tool.name if tool.type in (None, "tool_reference") else None
        if added and isinstance(tool.definition, FunctionTool):
            name = tool.definition.name
            self.defined[name] = tool.definition, (*at, "tool", "definition")
        if name is not None:
            self.offered[name] = added
        return name is not None


class OfferedTools(NamedTuple):
    """The tools that the model gets, the place of each in the body, and how to use them.

    ``ignored`` names what of the body's tools, and of the choice among them, has no effect.
    """

    tools: list[core.Tool]
    places: list[Locator]
    choice: core.ToolChoice
    ignored: set[str]


def offered_tools(body: wire.Conversation, changes: ToolChanges) -> OfferedTools:
    """The tools of ``body`` after ``changes``: not those still deferred, or removed.

    Raises InvalidRequest for two tools of one name, and for a choice that no tool fits.
    """
    functions: dict[str, tuple[FunctionTool, Locator]] = {}
    hosted: list[HostedTool] = []
    for index, tool in enumerate(body.tools or []):
        if isinstance(tool, HostedTool):
            hosted.append(tool)
        elif tool.name in functions:
            raise InvalidRequest(
                f"tools[{index}]: two tools are called {tool.name}.", at=("tools", index)
            )
        else:
            functions[tool.name] = tool, ("tools", index)
    choice = body.tool_choice
    ignored = {f"tools.{tool.type}" for tool in hosted}
    if isinstance(choice, OtherChoice):
        ignored.add(f"tool_choice.{choice.type}")
        choice = None
    chosen = choice.name if choice else None
    found = [
        (tool, place)
        for tool, place in (functions | changes.defined).values()
        if tool.name == chosen or changes.offered.get(tool.name, not tool.defer_loading)
    ]
    names = {tool.name for tool, _ in found}
    if choice is not None and _wants_hosted(choice, hosted, names):
        ignored.add("tool_choice")
        choice = choice.model_copy(update={"type": "auto"})
    tools = [_canonical(tool) for tool, _ in found]
    return OfferedTools(tools, [place for _, place in found], _choice(choice, names), ignored)


def _canonical(tool: FunctionTool) -> core.Tool:
    return core.Tool(
        name=tool.name,
        description=tool.description,
        parameters=tool.input_schema,
        strict=bool(tool.strict),
    )


def _wants_hosted(
    choice: ToolChoice, hosted: Collection[HostedTool], names: Collection[str]
) -> bool:
    """Whether ``choice`` wants a tool called, and only ``hosted`` ones are such."""
    if choice.type == "any":
        return bool(hosted) and not names
    hosted_names = [(tool.model_extra or {}).get("name") for tool in hosted]
    return choice.type == "tool" and choice.name not in names and choice.name in hosted_names


def _choice(choice: ToolChoice | None, names: Collection[str]) -> core.ToolChoice:
    if choice is None:
        return core.ToolChoice()
    parallel = not choice.disable_parallel_tool_use
    match choice.type:
        case "any" if not names:
            raise InvalidRequest("tool_choice: there are no tools.", at=("tool_choice",))
        case "any":
            return core.ToolChoice(mode="required", parallel=parallel)
        case "tool":
            if choice.name not in names:
                raise InvalidRequest(
                    f"tool_choice: there is no tool {choice.name}.", at=("tool_choice", "name")
                )
            return core.ToolChoice(mode="named", name=choice.name, parallel=parallel)
        case _:
            return core.ToolChoice(mode=choice.type, parallel=parallel)
