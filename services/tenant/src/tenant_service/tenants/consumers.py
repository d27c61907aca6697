"""`billing.events.v1`: who does not pay is suspended, who pays is not any more."""

from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple
from uuid import UUID

import msgspec
import structlog
from aiokafka import ConsumerRecord
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from tenant_service.audit import Actor
from tenant_service.domain.lifecycle import TRANSITIONS, Command
from tenant_service.domain.suspension import SuspensionReason
from tenant_service.tenants.repository import known_tenants, lock_tenants
from tenant_service.tenants.service import command_tenants
from tenant_service.transactions import joined
from tenantry import Clock
from tenantry.events import InvalidRecord, InvalidRecords, decode

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

BILLING_EVENTS = "billing.events.v1"
BILLING = Actor(subject="billing", kind="service", credential_id="")

_COMMANDS = {"billing.delinquent.v1": Command.SUSPEND, "billing.paid.v1": Command.REACTIVATE}


class Standing(msgspec.Struct):
    """The value of a record; fields that are not known are ignored."""

    tenant_id: UUID


class _Wanted(NamedTuple):
    record: ConsumerRecord
    tenant_id: UUID
    command: Command


def billing_handler(clock: Clock) -> Callable[[AsyncConnection, Sequence[ConsumerRecord]], Awaitable[None]]:
    """A handler that applies a batch in the consumer's transaction; repeating a record changes nothing.

    Other types of events are for others. A record that cannot be read, or that names a tenant that there never was, is
    a dead letter; a tenant that cannot be suspended (it has gone, or was never provisioned) is left as it is.
    """

    async def handle(connection: AsyncConnection, records: Sequence[ConsumerRecord]) -> None:
        wanted = _wanted(records)
        if not wanted:
            return
        async with joined(connection) as session:
            known = await known_tenants(session, {each.tenant_id for each in wanted})
            unknown = [InvalidRecord(each.record, "no such tenant") for each in wanted if each.tenant_id not in known]
            if unknown:
                raise InvalidRecords(unknown)
            for turn in _turns(wanted):
                await _apply(session, turn, clock)

    return handle


def _wanted(records: Sequence[ConsumerRecord]) -> list[_Wanted]:
    wanted, invalid = [], []
    for record in records:
        try:
            event = decode(record)
            command = _COMMANDS.get(event.type)
            if command is not None:
                wanted.append(_Wanted(record, msgspec.convert(event.data, Standing).tenant_id, command))
        except InvalidRecord as error:
            invalid.append(error)
        except msgspec.ValidationError as error:
            invalid.append(InvalidRecord(record, str(error)))
    if invalid:
        raise InvalidRecords(invalid)
    return wanted


def _turns(wanted: Sequence[_Wanted]) -> list[list[_Wanted]]:
    """In each turn a tenant stands once, so that its records are applied in their order, and tenants together."""
    turns: list[list[_Wanted]] = []
    seen: dict[UUID, int] = {}
    for each in wanted:
        number = seen.get(each.tenant_id, 0)
        seen[each.tenant_id] = number + 1
        if number == len(turns):
            turns.append([])
        turns[number].append(each)
    return turns


async def _apply(session: AsyncSession, turn: Sequence[_Wanted], clock: Clock) -> None:
    tenants = await lock_tenants(session, {each.tenant_id for each in turn})
    for command in (Command.SUSPEND, Command.REACTIVATE):
        able = []
        for each in turn:
            if each.command is command:
                row, test_clock = tenants[each.tenant_id]
                if (row.status, command) in TRANSITIONS:
                    able.append((row, test_clock))
                else:
                    _log.info("billing_event_ignored", tenant_id=str(row.id), status=row.status, command=command)
        await command_tenants(session, able, command, reason=SuspensionReason.BILLING, actor=BILLING, now=clock.now())
