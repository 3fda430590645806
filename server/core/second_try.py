"""A second try where a model's worker died."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from server.core.errors import WorkerDied

logger = logging.getLogger(__name__)

T = TypeVar("T")


async def with_second_try(ask: Callable[[], Awaitable[T]]) -> T:
    """What ``ask`` returns; it is called once more where the model's worker died meanwhile.

    ``ask`` must have sent and stored nothing when it raises WorkerDied. There is no third try: the
    request itself may be what kills workers. Raises what the last try raises.
    """
    try:
        return await ask()
    except WorkerDied as death:
        say_tried_again(death)
    return await ask()


def say_tried_again(death: WorkerDied) -> None:
    """Log that a request is asked again after ``death``."""
    logger.info("a request is tried again: %s", death.message)
