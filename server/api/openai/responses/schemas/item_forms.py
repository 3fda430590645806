"""The forms in which clients write items: short ones, and those of chat completions."""

from __future__ import annotations

from server.api.roles import usual_role

_KINDS = {
    "message": "message",
    "reasoning": "reasoning",
    "function_call": "function_call",
    "custom_tool_call": "custom_tool_call",
    "function_call_output": "output",
    "custom_tool_call_output": "output",
    "local_shell_call": "client_call",
    "shell_call": "client_call",
    "apply_patch_call": "client_call",
    "local_shell_call_output": "client_output",
    "shell_call_output": "client_output",
    "apply_patch_call_output": "client_output",
    "additional_tools": "additional_tools",
    "tool_search_output": "additional_tools",
    "compaction": "compaction",
    "compaction_trigger": "compaction_trigger",
    "configuration_update": "configuration_update",
    "item_reference": "item_reference",
}


_CALLS = {"function_call", "custom_tool_call", "client_call"}


def kind_of(item: object) -> str | None:
    """The kind of an item, given as JSON; None where it states none."""
    if not isinstance(item, dict):
        return None
    kind = item.get("type")
    if kind is None:
        # OpenAI's own short forms: a message with its role, and a reference by its id alone.
        return "message" if "role" in item or "content" in item else "item_reference"
    return _KINDS.get(kind, "other") if isinstance(kind, str) and kind else None


def usual_item(item: object) -> object:
    """A text alone as the user's message, messages of chat completions as items, calls with an id.

    A call without one is called by its tool: results find the first such call without a result.
    """
    if isinstance(item, str):
        return {"role": "user", "content": item}
    if kind_of(item) in _CALLS and isinstance(item, dict) and item.get("call_id") is None:
        return {**item, "call_id": item.get("id") or call_id(item.get("name", item["type"]))}
    match usual_role(item):
        case {"role": "tool" | "function", **result} if "type" not in result:
            output, id_ = result.pop("content", None), result.pop("tool_call_id", None)
            return {**result, "type": "function_call_output", "call_id": id_, "output": output}
        case {"role": "assistant", "tool_calls": list() as calls, **answer}:
            return {"content": None, **answer, "role": "assistant", "tool_calls": calls}
        case usual:
            return usual


def call_id(name: object) -> str:
    """The id of a call of the tool ``name`` that has none."""
    return f"call_{name}"
