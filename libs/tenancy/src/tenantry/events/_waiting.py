"""Waiting for servers that are away, and letting go of clients whose server is."""

import asyncio
import contextlib
from typing import Final, Protocol

import asyncpg
import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

log = structlog.get_logger(__name__)

_AWAY: Final = (
    OSError,
    KafkaError,
    PoolTimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.TransactionRollbackError,
    asyncpg.ObjectNotInPrerequisiteStateError,
)


class Stoppable(Protocol):
    async def stop(self) -> None: ...


def driver_error(error: BaseException) -> BaseException:
    """What asyncpg raised, behind SQLAlchemy's wrapping: that loses the class of some errors (a NUL in a text)."""
    if isinstance(error, DBAPIError) and error.orig is not None:
        return error.orig.__cause__ or error.orig
    return error


def is_away(error: BaseException) -> bool:
    """Whether the error says that a server cannot be reached now: waiting helps, another record does not."""
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    raised = driver_error(error)
    if isinstance(raised, ValueError):
        return False  # to asyncpg a value that does not fit its type is an InterfaceError too
    return isinstance(raised, _AWAY)


async def stop_client(client: Stoppable, *, within: float = 2.0) -> None:
    """Stops an aiokafka client that may be unable to say good-bye; never raises, takes `within` seconds at most.

    An idempotent producer retries for ever and its `stop` waits for that, so with the broker away it is cut off.
    """
    try:
        async with asyncio.timeout(within):
            await client.stop()
    except (TimeoutError, KafkaError, OSError, AssertionError) as error:
        log.info("kafka_client_cut_off", client=type(client).__name__, error=repr(error))
        if isinstance(client, AIOKafkaProducer):
            sender = client._sender.sender_task  # noqa: SLF001 - no public way to give up what cannot be sent
            if sender is not None:
                sender.cancel()
                await asyncio.wait([sender], timeout=within)
            with contextlib.suppress(KafkaError, OSError):
                await client.client.close()
