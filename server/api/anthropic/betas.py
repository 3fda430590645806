"""The header ``anthropic-beta``: names of features that a client wants, with the date of each.

No beta is refused. Those that this server does not know are named in ``x-dragoman-ignored``.
"""

from __future__ import annotations

import re

from starlette.datastructures import Headers

from server.api.ignored_names import header_value

_DATE = re.compile(r"-\d{4}-?\d{2}-?\d{2}$")

# Of a feature that is known, either its fields are served, or they are named where they are sent.
_KNOWN = {
    "advanced-tool-use",
    "claude-code",
    "compact",
    "context-management",
    "effort",
    "extended-cache-ttl",
    "fine-grained-tool-streaming",
    "inline-tools",
    "interleaved-thinking",
    "mid-conversation-tool-changes",
    "oauth",
    "prompt-caching",
    "structured-outputs",
    "thinking-display-updates",
    "thinking-token-count",
    "token-counting",
    "token-efficient-tools",
    "tool-search-tool",
}


def unknown_betas(headers: Headers) -> list[str]:
    """The betas of a request that are not known here, as names for the header of the answer."""
    stated = [
        beta.strip() for value in headers.getlist("anthropic-beta") for beta in value.split(",")
    ]
    unknown = [f"anthropic-beta.{beta}" for beta in stated if beta and _name(beta) not in _KNOWN]
    return [header_value(sorted(unknown))] if unknown else []


def _name(beta: str) -> str:
    return _DATE.sub("", beta)
