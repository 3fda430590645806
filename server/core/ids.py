"""Random names."""

from __future__ import annotations

import secrets
import string


def random_id(length: int) -> str:
    """``length`` letters and digits, as OpenAI's ids have them."""
    return "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(length))
