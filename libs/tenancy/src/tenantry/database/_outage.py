"""Which errors mean that a database cannot serve now, though nothing is wrong with what it was asked."""

import socket
from typing import Final

import asyncpg
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from tenantry.database._errors import ConnectionsExhausted, MissingUrl, UnknownStore

_OUTAGES: Final = (
    ConnectionError,
    TimeoutError,
    socket.gaierror,
    PoolTimeoutError,
    ConnectionsExhausted,
    MissingUrl,
    UnknownStore,
    asyncpg.PostgresConnectionError,
    asyncpg.InvalidAuthorizationSpecificationError,  # the role is gone, or its password has been changed
    asyncpg.InvalidCatalogNameError,  # the database is being restored
    asyncpg.TransactionRollbackError,  # a deadlock, or a conflict of two transactions
    asyncpg.InsufficientResourcesError,
    asyncpg.LockNotAvailableError,
    asyncpg.OperatorInterventionError,  # shutting down, starting up, a statement's time is over
)


def find_outage(error: BaseException) -> str | None:
    """What is the matter, in one line without row values, where `error` is an outage; None where it is a defect.

    Of a transaction that ended so nothing is known: it may be committed. A later repetition may find all well.
    """
    cause: BaseException = error
    if isinstance(error, DBAPIError) and error.orig is not None:
        cause = error.orig.__cause__ or error.orig  # the driver's own error, which the dialect translates
    cut = isinstance(error, DBAPIError) and error.connection_invalidated
    if not cut and not isinstance(cause, _OUTAGES) and not _found_no_address(cause):
        return None
    text = " ".join(str(cause).split())
    return f"{type(cause).__name__}: {text}" if text else type(cause).__name__


def _found_no_address(error: BaseException) -> bool:
    # A host of several addresses that all refuse: asyncio joins their errors into one without a number.
    return type(error) is OSError and error.errno is None
