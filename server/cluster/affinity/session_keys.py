"""Keys by which a request says itself which session it belongs to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

SESSION_HEADERS: Mapping[bytes, str] = {
    b"x-claude-code-session-id": "Claude Code",
    # A session of Codex may have several threads, each a conversation of its own.
    b"thread-id": "Codex",
    b"session-id": "Codex",
    b"x-session-affinity": "opencode",
    b"x-session-id": "opencode, and clients of Ray Serve",
}
"""Headers that name a session, with the client that sends each; the first that is there counts."""


def header_key(headers: Mapping[bytes, bytes]) -> bytes | None:
    """The session that the headers name; ``headers`` has lower-case names."""
    return next((headers[name] for name in SESSION_HEADERS if headers.get(name)), None)


def body_key(body: Mapping[str, Any]) -> str | None:
    """The session that the body names: ``prompt_cache_key``, or what Claude Code calls its user."""
    key = body.get("prompt_cache_key")
    if isinstance(key, str) and key:
        return key
    metadata = body.get("metadata")
    return _claude_session(metadata.get("user_id")) if isinstance(metadata, Mapping) else None


def stored_id(body: Mapping[str, Any]) -> str | None:
    """The id of the stored response or conversation that the request goes on with."""
    conversation = body.get("conversation")
    if isinstance(conversation, Mapping):
        conversation = conversation.get("id")
    found = (body.get("previous_response_id"), conversation)
    return next((value for value in found if isinstance(value, str) and value), None)


def _claude_session(user: object) -> str | None:
    """The session in ``metadata.user_id``, which Claude Code writes as a string of JSON.

    Any other user id may be that of a whole application, and says nothing about sessions.
    """
    if not isinstance(user, str) or not user.startswith("{"):
        return None
    try:
        found = msgspec.json.decode(user)
    except msgspec.DecodeError:
        return None
    session = found.get("session_id") if isinstance(found, dict) else None
    return session if isinstance(session, str) and session else None
