"""Waiting for a condition, with a deadline."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


async def eventually(condition: Callable[[], T | Awaitable[T]], within: float = 10.0, *, interval: float = 0.05) -> T:
    """Asks ``condition``, a plain or an async callable, until its answer is true, and returns that answer.

    An AssertionError of the condition means "not yet". Raises AssertionError with the last answer or failure after
    ``within`` seconds; other exceptions pass.
    """
    deadline = time.monotonic() + within
    while True:
        failure: AssertionError | None = None
        answer: T | None = None
        try:
            asked = condition()
            answer = await asked if inspect.isawaitable(asked) else asked
        except AssertionError as error:
            failure = error
        if answer:
            return answer
        if time.monotonic() >= deadline:
            msg = f"not within {within} s: {answer if failure is None else failure!s}"
            raise AssertionError(msg) from failure
        await asyncio.sleep(interval)
