"""Random names, and the name of the request that is being served."""

from __future__ import annotations

import secrets
import string
from contextvars import ContextVar

request_id: ContextVar[str] = ContextVar("request_id", default="-")
"""The id of the request that the running task serves."""


home: ContextVar[str] = ContextVar("home", default="")
"""The letters that name this server among those of a cluster; empty where there is only one."""

ALPHABET = string.ascii_letters + string.digits

ANSWER_LETTERS = 40
"""The letters of the id of a response."""


def random_id(length: int) -> str:
    """``length`` letters and digits, as OpenAI's ids have them."""
    # One number for all letters: one system call in place of one each.
    number = secrets.randbelow(len(ALPHABET) ** length)
    letters = []
    for _ in range(length):
        number, letter = divmod(number, len(ALPHABET))
        letters.append(ALPHABET[letter])
    return "".join(letters)


def id_with_home(length: int) -> str:
    """A random id that ends in the name of this server, which has the prompt that goes with it."""
    return random_id(length - len(home.get())) + home.get()


def new_request_id() -> str:
    """A random id for one request, in the ``x-request-id`` header and in the log."""
    return f"req_{secrets.token_hex(16)}"
