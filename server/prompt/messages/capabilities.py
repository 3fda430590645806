"""Verdicts on what a chat template can express; ``probe.py`` finds them."""

from __future__ import annotations

import msgspec


class Capabilities(msgspec.Struct, frozen=True, kw_only=True):
    """Verdicts on one template; true means that it expresses the case natively and completely.

    Attributes:
        renders: A single user message.
        string_content: Content as a string (false: only as a list of parts).
        content_parts: Content as two text parts, for every role.
        system_role: A leading system message.
        lasting_system: A leading system message, also where the last message is not a user's.
        developer_role: The developer role, by that name.
        several_systems: Two leading system messages.
        late_system: A system message after other turns, shown where it stands.
        author_names: A user message's ``name``.
        consecutive_users: Two user messages in a row.
        consecutive_assistants: Two assistant messages in a row.
        assistant_first: A conversation that the assistant begins.
        tools: Descriptions of tools: name, description and parameters.
        bare_tools: Tools that have neither description nor parameters.
        bare_parameters: Parameters without properties, and properties without descriptions.
        tool_calls: Past tool calls: name and arguments.
        object_arguments: Arguments of calls as an object (false: as JSON text).
        free_arguments: Arguments of calls as any text, JSON or not, shown as it is.
        free_call_ids: Call ids in OpenAI's form.
        short_call_ids: Call ids of nine letters and digits.
        empty_content_with_calls: Calls beside the content ``""``.
        null_content_with_calls: Calls beside the content null.
        absent_content_with_calls: Calls without content.
        content_with_calls: Calls beside text, both shown.
        text_before_calls: An assistant message with text followed by one with calls.
        parallel_calls: Two calls in one message.
        tool_results: The tool role.
        unnamed_results: Tool results without the function's name.
        user_after_results: A user message right after a tool result.
        reasoning: The reasoning of an assistant message, at least in the current turn.
        continuation: Ending the prompt inside the last assistant message.
    """

    renders: bool = False
    string_content: bool = False
    content_parts: bool = False
    system_role: bool = False
    lasting_system: bool = False
    developer_role: bool = False
    several_systems: bool = False
    late_system: bool = False
    author_names: bool = False
    consecutive_users: bool = False
    consecutive_assistants: bool = False
    assistant_first: bool = False
    tools: bool = False
    bare_tools: bool = False
    bare_parameters: bool = False
    tool_calls: bool = False
    object_arguments: bool = False
    free_arguments: bool = False
    free_call_ids: bool = False
    short_call_ids: bool = False
    empty_content_with_calls: bool = False
    null_content_with_calls: bool = False
    absent_content_with_calls: bool = False
    content_with_calls: bool = False
    text_before_calls: bool = False
    parallel_calls: bool = False
    tool_results: bool = False
    unnamed_results: bool = False
    user_after_results: bool = False
    reasoning: bool = False
    continuation: bool = False
