"""LISTEN on a connection of its own, kept open for ever: a notification saves waiting, a lost one only costs a poll."""

import asyncio
from collections.abc import Callable
from typing import Any

import asyncpg
import structlog
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_random_exponential

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

CHECK_SECONDS = 10.0
LONGEST_PAUSE_SECONDS = 5.0


def until_it_works(what: str) -> AsyncRetrying:
    """Try again for ever, with back-off and jitter, whatever the error is; each one is logged. Cancelling ends it."""

    def log(state: RetryCallState) -> None:
        error = state.outcome and state.outcome.exception()
        _log.warning("trying_again", what=what, attempt=state.attempt_number, error=repr(error))

    return AsyncRetrying(
        retry=retry_if_exception_type(Exception),
        wait=wait_random_exponential(multiplier=0.1, max=LONGEST_PAUSE_SECONDS),
        before_sleep=log,
    )


async def listen(
    dsn: str,
    channel: str,
    notified: Callable[[str], None],
    connected: Callable[[], None] = lambda: None,
    lost: Callable[[], None] = lambda: None,
) -> None:
    """Call `notified(payload)` for each notification until cancelled.

    `connected` is called after each (re)connection: whatever was notified before it may have been missed. `lost` is
    called when the connection is found to be broken, at most `CHECK_SECONDS` and a time-out after it broke.
    """

    def on_notification(_connection: Any, _pid: int, _channel: str, payload: object) -> None:
        notified(str(payload))

    while True:
        async for attempt in until_it_works(f"listen {channel}"):
            with attempt:
                connection = await asyncpg.connect(dsn, timeout=LONGEST_PAUSE_SECONDS)
        try:
            await connection.add_listener(channel, on_notification)
            connected()
            await _until_broken(connection)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError) as error:
            _log.warning("listener_lost", channel=channel, error=repr(error))
            lost()
        finally:
            connection.terminate()


async def _until_broken(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    """Ask now and then: a half-open connection gives no notifications and no error either."""
    while True:
        await asyncio.sleep(CHECK_SECONDS)
        await connection.execute("SELECT 1", timeout=LONGEST_PAUSE_SECONDS)
