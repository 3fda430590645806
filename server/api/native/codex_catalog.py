"""The models as Codex lists models: the array ``models`` of ``GET /v1/models``.

Codex (0.169) reads it from the answer, or from a file that ``model_catalog_json`` names. Of a model
that it does not know, it assumes a context of 272,000 tokens, and offers no tool for patches.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel

from server.core.model_info import ModelEntry

_INSTRUCTIONS = """\
You are a coding agent. You work in Codex, a program in a terminal, on the user's computer and in \
the folder that the environment context names.

- Work until the task is done. Look before you change: read the files that matter, and search with \
`rg` where you do not know the place.
- Run commands and change files with the tools. Change files with `apply_patch` if it is there. \
Never invent the result of a command.
- Change what the task needs and nothing else, in the style of the code around it. Never undo \
changes that are not yours. Do not commit unless you are asked to.
- When you are done, check your work: run the tests or the program.
- Say in a few plain sentences what you did and what is left."""


class TruncationPolicy(BaseModel):
    """How much of a tool's output the model gets."""

    mode: Literal["tokens", "bytes"]
    limit: int


class ReasoningLevel(BaseModel):
    """An effort that can be asked for."""

    effort: str
    description: str


class CodexModel(BaseModel):
    """An entry of Codex's catalogue; ``context_window`` is in tokens.

    It is absent where the header is unreadable.
    """

    slug: str
    display_name: str
    description: str
    base_instructions: str
    context_window: int = 0
    shell_type: Literal["unified_exec"]
    apply_patch_tool_type: Literal["freeform"]
    input_modalities: list[str]
    truncation_policy: TruncationPolicy
    supports_parallel_tool_calls: bool
    supports_reasoning_summaries: bool
    supported_reasoning_levels: list[ReasoningLevel]
    support_verbosity: bool
    experimental_supported_tools: list[str]
    visibility: Literal["list", "hide"]
    supported_in_api: bool
    priority: int


def codex_model(entry: ModelEntry, priority: int) -> CodexModel:
    """``entry`` in Codex's form; lists show the lowest ``priority`` first."""
    info, known = entry.info, entry.known
    usable = entry.state != "failed" and (known is None or known.generates)
    efforts = info is not None and "reasoning_effort" in (info.template_variables or [])
    levels = ("low", "medium", "high") if efforts else ()
    window = {} if known is None else {"context_window": known.context}
    return CodexModel(
        slug=entry.id,
        display_name=entry.id,
        description="A local model.",
        base_instructions=_INSTRUCTIONS,
        shell_type="unified_exec",
        apply_patch_tool_type="freeform",
        input_modalities=["text", "image"] if known and known.projector else ["text"],
        # The limit that Codex has for its own models.
        truncation_policy=TruncationPolicy(mode="tokens", limit=10_000),
        supports_parallel_tool_calls=True,
        supports_reasoning_summaries=True,
        supported_reasoning_levels=[
            ReasoningLevel(effort=level, description=f"{level.capitalize()} effort.")
            for level in levels
        ],
        support_verbosity=False,
        experimental_supported_tools=[],
        visibility="list" if usable else "hide",
        supported_in_api=True,
        priority=priority,
        **window,
    )
