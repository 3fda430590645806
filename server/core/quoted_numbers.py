"""Numbers that stand in a text: shells, forms and people who write by hand quote all they send."""

from __future__ import annotations

import re

_NUMBER = re.compile(r"-?[0-9]{1,20}(\.[0-9]{1,20})?")


def unquoted(value: object) -> object:
    """``value``, as the number that stands in it if it is a text of one."""
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        return float(value) if "." in value else int(value)
    return value
