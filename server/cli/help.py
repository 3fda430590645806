"""How the commands print their help."""

from __future__ import annotations

import re

from typer._click import Context, HelpFormatter
from typer.core import TyperArgument, TyperCommand

# The type that typer shows behind a name.
_TYPE = re.compile(r" <([^<>]+)>$")
# The same in a user's words.
_WORDS = {"str": "TEXT", "int": "N", "int range": "N", "float": "N", "path": "PATH"}
# In place of a number of letters: the list of commands breaks lines between words.
_NO_LIMIT = 1000


class Command(TyperCommand):
    """A command whose help shows what to write, and no types of Python."""

    def collect_usage_pieces(self, ctx: Context) -> list[str]:
        """The pieces of the usage line; what must be stated stands without brackets."""
        return [re.sub(r"\{(.+)\}", r"\1", piece) for piece in super().collect_usage_pieces(ctx)]

    def get_short_help_str(self, limit: int = _NO_LIMIT) -> str:
        """The first sentence, whole."""
        return super().get_short_help_str(max(limit, _NO_LIMIT))

    def format_options(self, ctx: Context, formatter: HelpFormatter) -> None:
        """Write the tables of arguments and options, which may have headings of their own."""
        tables: dict[str, list[tuple[str, str]]] = {"Arguments": []}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is None:
                continue
            name, text = record
            # The name of an argument says enough.
            is_argument = isinstance(parameter, TyperArgument)
            plain = _TYPE.sub("" if is_argument else _in_words, name)
            heading = getattr(parameter, "rich_help_panel", None) or "Options"
            tables.setdefault("Arguments" if is_argument else heading, []).append((plain, text))
        for title, rows in tables.items():
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)


def _in_words(found: re.Match[str]) -> str:
    return f" {_WORDS.get(found[1], found[1])}"
