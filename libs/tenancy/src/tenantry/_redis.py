"""A Redis or Valkey server that may go away at any time, and is then left alone for a while."""

import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Final, Self

import structlog
from prometheus_client import Counter
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, RedisError

log = structlog.get_logger(__name__)

_FAILURES: Final = 3
_MAX_PAUSE: Final = 10.0
_OUTAGES: Final = Counter("tenantry_redis_outages_total", "Times at which the Redis server was given up for a while.")


class RedisAway(Exception):
    """The server did not do what was asked, or is not asked for now. Nothing is known of what it did."""


class Script:
    """A Lua script, sent by its digest."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.sha: str | None = None


class RedisServer:
    """Runs scripts on one server, each of which is one round trip and atomic.

    A call takes `timeout` seconds at most. After a few failures in a row nothing is asked for a while, a tenth of a
    second at first and ten at last; then one call tries. Connects when it is first used.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout: float = 0.25,
        connections: int = 32,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`url` is `redis://…` or, with TLS, `rediss://…`, with user and password where the server asks for them."""
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=connections,
            timeout=timeout,
            socket_timeout=timeout,
            socket_connect_timeout=timeout,
            # Once more at once: after a restart of the server every pooled connection is broken.
            retry=Retry(NoBackoff(), 1, supported_errors=(RedisConnectionError,)),
        )
        self._client: Redis = Redis.from_pool(pool)
        self._monotonic = monotonic
        self._failures = 0
        self._closed_until = 0.0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        await self._client.aclose()

    async def run(self, script: Script, keys: Sequence[str], arguments: Sequence[str | bytes | int]) -> Any:
        """What the script returns. Raises `RedisAway` where the server does not answer, or is left alone for now."""
        now = self._monotonic()
        if now < self._closed_until:
            raise RedisAway("left alone")
        if self._failures >= _FAILURES:
            self._closed_until = now + self._pause()  # one call tries, the others do not wait for it
        try:
            answer = await self._evaluate(script, keys, arguments)
        except (RedisError, OSError, TimeoutError) as error:
            self._failed(error)
            raise RedisAway(type(error).__name__) from error
        if self._failures:
            self._failures, self._closed_until = 0, 0.0
        return answer

    async def _evaluate(self, script: Script, keys: Sequence[str], arguments: Sequence[str | bytes | int]) -> Any:
        if script.sha is not None:
            try:
                return await self._client.evalsha(script.sha, len(keys), *keys, *arguments)
            except NoScriptError:  # the server has started anew
                pass
        script.sha = await self._client.script_load(script.text)
        return await self._client.evalsha(script.sha, len(keys), *keys, *arguments)

    def _failed(self, error: Exception) -> None:
        self._failures += 1
        if self._failures >= _FAILURES:
            self._closed_until = self._monotonic() + self._pause()
        if self._failures == _FAILURES:
            _OUTAGES.inc()
            log.warning("redis_away", error=f"{type(error).__name__}: {error}")

    def _pause(self) -> float:
        return min(_MAX_PAUSE, 0.1 * 2.0 ** min(10, self._failures - _FAILURES))
