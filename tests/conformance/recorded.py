"""What agents send, as facts that their tests hold and the documentation shows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Sent:
    """One request that an agent made.

    Attributes:
        path: Where it was sent, with its query.
        size: The bytes of its body.
        keys: The names at the top of its body.
        tools: The name of each tool, or its type where it has none.
    """

    path: str
    size: int
    keys: frozenset[str]
    tools: tuple[str, ...]

    @classmethod
    def of(cls, path: str, body: bytes) -> Sent:
        """The facts about a body in JSON."""
        value = json.loads(body)
        tools = tuple(_name(tool) for tool in value.get("tools") or [])
        return cls(path, len(body), frozenset(value), tools)

    def like(self, other: Sent) -> bool:
        """Whether it is the same kind of request; names of folders and dates make sizes differ."""
        alike = (self.path, self.keys, self.tools) == (other.path, other.keys, other.tools)
        return alike and abs(self.size - other.size) < other.size / 10


def _name(tool: dict[str, object]) -> str:
    function = tool.get("function")
    named = function if isinstance(function, dict) else tool
    return str(named.get("name", tool.get("type")))


_OPENCODE_TOOLS = (
    "bash",
    "edit",
    "glob",
    "grep",
    "read",
    "skill",
    "task",
    "todowrite",
    "webfetch",
    "write",
)

RECORDED = {
    "Codex": Sent(
        path="/v1/responses",
        size=39759,
        keys=frozenset(
            {
                "client_metadata",
                "include",
                "input",
                "model",
                "parallel_tool_calls",
                "prompt_cache_key",
                "reasoning",
                "store",
                "stream",
                "tool_choice",
                "tools",
            }
        ),
        tools=(
            "exec_command",
            "write_stdin",
            "request_user_input",
            "view_image",
            "multi_agent_v1",
            "get_goal",
            "create_goal",
            "update_goal",
            "web_search",
        ),
    ),
    "Codex, with its catalogue": Sent(
        path="/v1/responses",
        size=23250,
        keys=frozenset(
            {
                "client_metadata",
                "include",
                "input",
                "model",
                "parallel_tool_calls",
                "prompt_cache_key",
                "reasoning",
                "store",
                "stream",
                "tool_choice",
                "tools",
            }
        ),
        tools=(
            "exec_command",
            "write_stdin",
            "request_user_input",
            "apply_patch",
            "view_image",
            "multi_agent_v1",
            "get_goal",
            "create_goal",
            "update_goal",
            "web_search",
        ),
    ),
    "Claude Code": Sent(
        path="/v1/messages?beta=true",
        size=49487,
        keys=frozenset(
            {
                "context_management",
                "max_tokens",
                "messages",
                "metadata",
                "model",
                "output_config",
                "stream",
                "system",
                "thinking",
                "tools",
            }
        ),
        tools=(
            "Agent",
            "Bash",
            "Edit",
            "ListAgents",
            "Read",
            "ReportFindings",
            "ScheduleWakeup",
            "Skill",
            "ToolSearch",
            "Workflow",
            "DeferredToolPlaceholder",
            "Write",
        ),
    ),
    "OpenCode, chat": Sent(
        path="/v1/chat/completions",
        size=30827,
        keys=frozenset(
            {"max_tokens", "messages", "model", "stream", "stream_options", "tool_choice", "tools"}
        ),
        tools=_OPENCODE_TOOLS,
    ),
    "OpenCode, responses": Sent(
        path="/v1/responses",
        size=30163,
        keys=frozenset(
            {
                "input",
                "max_output_tokens",
                "model",
                "prompt_cache_key",
                "store",
                "stream",
                "tool_choice",
                "tools",
            }
        ),
        tools=_OPENCODE_TOOLS,
    ),
    "OpenCode, messages": Sent(
        path="/v1/messages",
        size=30611,
        keys=frozenset(
            {"max_tokens", "messages", "model", "stream", "system", "tool_choice", "tools"}
        ),
        tools=_OPENCODE_TOOLS,
    ),
    "Qwen Code": Sent(
        path="/v1/chat/completions",
        size=68279,
        keys=frozenset({"max_tokens", "messages", "model", "stream", "stream_options", "tools"}),
        tools=(
            "agent",
            "edit",
            "get_goal",
            "glob",
            "grep_search",
            "list_agents",
            "notebook_edit",
            "read_file",
            "skill",
            "tool_call",
            "tool_search",
            "update_goal",
            "write_file",
        ),
    ),
    "Cline": Sent(
        path="/v1/chat/completions",
        size=21794,
        keys=frozenset({"messages", "model", "stream", "stream_options", "tool_choice", "tools"}),
        tools=(
            "read_files",
            "search_codebase",
            "run_commands",
            "fetch_web_content",
            "editor",
            "ask_question",
            "spawn_agent",
            "team_spawn_teammate",
            "team_shutdown_teammate",
            "team_status",
            "team_task",
            "team_run_task",
            "team_cancel_run",
            "team_list_runs",
            "team_await_runs",
            "team_send_message",
            "team_broadcast",
            "team_read_mailbox",
            "team_mission_log",
            "team_cleanup",
            "team_create_outcome",
            "team_attach_outcome_fragment",
            "team_review_outcome_fragment",
            "team_finalize_outcome",
            "team_list_outcomes",
        ),
    ),
    "Continue": Sent(
        path="/v1/chat/completions",
        size=5637,
        keys=frozenset({"max_tokens", "messages", "model", "stream", "stream_options", "tools"}),
        tools=(
            "Read",
            "List",
            "Bash",
            "Fetch",
            "Checklist",
            "CheckBackgroundJob",
            "AskQuestion",
            "Exit",
            "Skills",
        ),
    ),
    "goose": Sent(
        path="/v1/chat/completions",
        size=18005,
        keys=frozenset({"messages", "model", "stream", "stream_options", "tools"}),
        tools=(
            "analyze",
            "apps__create_app",
            "apps__delete_app",
            "apps__iterate_app",
            "apps__list_apps",
            "delegate",
            "edit",
            "extensionmanager__list_resources",
            "extensionmanager__manage_extensions",
            "extensionmanager__read_resource",
            "extensionmanager__search_available_extensions",
            "load",
            "load_skill",
            "read_image",
            "shell",
            "tree",
            "write",
        ),
    ),
}
"""The first request with tools of each agent, whose prompt is one sentence."""


LIBRARIES = {
    "openai-agents, responses": Sent(
        path="/v1/responses",
        size=503,
        keys=frozenset(
            {
                "include",
                "input",
                "max_output_tokens",
                "model",
                "parallel_tool_calls",
                "temperature",
                "tool_choice",
                "tools",
            }
        ),
        tools=("inhabitants",),
    ),
    "pydantic-ai, responses": Sent(
        path="/v1/responses",
        size=389,
        keys=frozenset({"input", "model", "stream", "tool_choice", "tools"}),
        tools=("inhabitants",),
    ),
    "pydantic-ai, messages": Sent(
        path="/v1/messages",
        size=415,
        keys=frozenset({"max_tokens", "messages", "model", "stream", "tool_choice", "tools"}),
        tools=("inhabitants",),
    ),
    "langchain-anthropic": Sent(
        path="/v1/messages",
        size=315,
        keys=frozenset({"max_tokens", "messages", "model", "tools"}),
        tools=("inhabitants",),
    ),
    "litellm, to messages": Sent(
        path="/v1/messages",
        size=382,
        keys=frozenset({"max_tokens", "messages", "model", "tool_choice", "tools"}),
        tools=("paint",),
    ),
}
"""What libraries make of one sentence and one function, with few settings of their program's."""


def check(agent: str, sent: Sequence[Sent]) -> None:
    """The first request with tools in ``sent`` is the recorded one of ``agent``, or a library."""
    first = next(request for request in sent if request.tools)
    recorded = (RECORDED | LIBRARIES)[agent]
    assert first.like(recorded), (first, recorded)
