"""The built-in formats that may fit a chat template."""

from __future__ import annotations

from functools import cache

import msgspec

from server.core.reply_format import ReplyFormat
from server.prompt.template.chat_template import ChatTemplate
from server.reply.builtin_formats import builtin_format, builtin_tables


class FormatRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When a built-in format is tried: by texts the template has and lacks, or by its SHA-256."""

    has: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()
    sha256: tuple[str, ...] = ()

    def fits(self, template: ChatTemplate) -> bool:
        """Whether the template has and lacks the texts."""
        source = template.source
        return (
            bool(self.has)
            and all(text in source for text in self.has)
            and not any(text in source for text in self.lacks)
        )


def candidates(template: ChatTemplate) -> list[ReplyFormat]:
    """The formats to try, best first: by hash, then by texts, in the order of ``formats.toml``."""
    rules = _rules()
    by_hash = [name for name, rule in rules.items() if template.sha256 in rule.sha256]
    by_texts = [name for name, rule in rules.items() if rule.fits(template)]
    return [builtin_format(name) for name in dict.fromkeys((*by_hash, *by_texts))]


@cache
def _rules() -> dict[str, FormatRule]:
    return {
        name: msgspec.convert(table["select"], FormatRule)
        for name, table in builtin_tables().items()
    }
