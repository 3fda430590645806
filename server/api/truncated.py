"""The header of an answer that says which texts of the request were not read to their end."""

from __future__ import annotations

from collections.abc import Sequence

# A choice: clients and proxies limit headers to some kilobytes.
_MOST_PLACES = 100


def truncated_header(field: str, places: Sequence[int]) -> dict[str, str]:
    """``x-dragoman-truncated: documents[3], …`` for the texts at ``places`` in ``field``."""
    named = [f"{field}[{place}]" for place in places[:_MOST_PLACES]]
    more = len(places) - len(named)
    said = ", ".join([*named, *([f"and {more} more"] if more else [])])
    return {"x-dragoman-truncated": said} if places else {}
