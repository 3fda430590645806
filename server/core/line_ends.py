"""Characters in JSON that some readers take for ends of lines."""

from __future__ import annotations

# Readers that split streams or files like Python's `str.splitlines` cut an event or a line in two
# at these. The other characters at which that splits are control characters, which JSON escapes.
_ESCAPES = {char.encode(): rf"\u{ord(char):04x}".encode() for char in "\x85\u2028\u2029"}


def escaped(json: bytes) -> bytes:
    """``json`` without these characters."""
    if json.isascii():  # most are, and the searches take twenty times as long
        return json
    for char, escape in _ESCAPES.items():
        if char in json:
            json = json.replace(char, escape)
    return json
