"""Applying a batch when some of its records cannot be applied."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeAlias

import asyncpg
import msgspec
from aiokafka import ConsumerRecord
from sqlalchemy.ext.asyncio import AsyncConnection

from tenantry.events._envelope import InvalidRecord, InvalidRecords
from tenantry.events._waiting import driver_error

Record: TypeAlias = "ConsumerRecord[bytes, bytes]"
Handle = Callable[[AsyncConnection, Sequence[Record]], Awaitable[None]]

_POISON: Final = (
    InvalidRecord,
    InvalidRecords,
    asyncpg.DataError,
    asyncpg.IntegrityConstraintViolationError,
    asyncpg.ProgramLimitExceededError,  # a row that no index or no page can hold
    msgspec.MsgspecError,
)


class RepeatBatch(Exception):
    """Raised by a handler that has to begin anew, in a transaction in which nothing has been done yet."""


def is_poison(error: BaseException) -> bool:
    """Whether a record caused it, not a server that is away or a mistake of ours: that record would fail again."""
    raised = driver_error(error)
    return isinstance(raised, _POISON) or (
        isinstance(raised, asyncpg.InterfaceError) and isinstance(raised, ValueError)
    )


async def salvage(connection: AsyncConnection, handle: Handle, records: Sequence[Record]) -> list[InvalidRecord]:
    """Applies all records but the bad ones, in the caller's transaction, and returns the bad ones.

    A handler that names the bad record has the batch split there; where the database refuses a batch it is bisected
    until one record fails alone. Every attempt has a savepoint, so the handler sees records again whose effects were
    rolled back, but never some whose effects stand.
    """
    invalid: list[InvalidRecord] = []
    parts: list[Sequence[Record]] = [records]
    while parts:
        part = parts.pop()
        if not part:
            continue
        try:
            async with connection.begin_nested():
                await handle(connection, part)
        except InvalidRecord as error:
            at = next((n for n, record in enumerate(part) if record is error.record), None)
            if at is None:
                raise RuntimeError(f"the handler refused a record that it was not given: {error}") from error
            invalid.append(error)
            # What came before it was not refused; so each record is read about twice, however many are bad.
            parts += (part[at + 1 :], part[:at])
        except InvalidRecords as error:
            refused = {id(bad.record) for bad in error.invalid}
            rest = [record for record in part if id(record) not in refused]
            if len(rest) == len(part):
                raise RuntimeError("the handler refused records that it was not given") from error
            invalid += error.invalid
            parts.append(rest)
        except Exception as error:
            if not is_poison(error):
                raise
            if len(part) == 1:
                invalid.append(InvalidRecord(part[0], _reason(error)))
            else:
                middle = len(part) // 2
                parts += (part[middle:], part[:middle])
    return invalid


def _reason(error: BaseException) -> str:
    raised = driver_error(error)
    return f"{type(raised).__name__}: {raised}"
