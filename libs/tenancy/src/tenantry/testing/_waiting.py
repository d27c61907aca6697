"""Waiting for a condition, with a deadline."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, overload

T = TypeVar("T")


@overload
async def eventually(condition: Callable[[], Awaitable[T]], within: float = ..., *, interval: float = ...) -> T: ...
@overload
async def eventually(condition: Callable[[], T], within: float = ..., *, interval: float = ...) -> T: ...
async def eventually(condition: Callable[[], Any], within: float = 30.0, *, interval: float = 0.05) -> Any:
    """Asks ``condition``, a plain or an async callable, until its answer is true, and returns that answer.

    An AssertionError of the condition means "not yet". Raises AssertionError with the last answer or failure after
    ``within`` seconds; other exceptions pass.
    """
    deadline = time.monotonic() + within
    while True:
        failure: AssertionError | None = None
        answer = None
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
