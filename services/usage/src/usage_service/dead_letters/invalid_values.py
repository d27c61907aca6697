"""The replay of a letter about a value that a meter could not count: a correction (rules 5 and 6).

The event is stored and other meters have counted it. So it is cancelled, and counts anew under an id of its own: once
for the meter that could not read it, and as before for the others. Both are made of the letter alone: a replay that is
repeated is a copy, however often it is killed.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import Any, Final
from uuid import UUID

import msgspec
from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncSession

from usage_service.corrections.service import Accepted, Corrections, CorrectionsRefused
from usage_service.dead_letters.refusals import NotReplayable
from usage_service.domain.errors import InvalidPath, InvalidQuantity
from usage_service.domain.identity import identity_of
from usage_service.domain.instants import microseconds
from usage_service.domain.jsonpath import with_value
from usage_service.domain.meters import CompiledMeter
from usage_service.domain.rollups import At, empty_state
from usage_service.metering.rows import decode_data
from usage_service.meters.repository import versions_of

_REASON: Final = "replay of dead letter {}"
_SLUG: Final = text("SELECT slug FROM system.meter WHERE id = :id")
_STORED: Final = text(
    """
    SELECT EXISTS (SELECT FROM pool.usage_event
                    WHERE tenant_id = :tenant AND identity = :identity AND day = :day
                      AND kafka_partition = :partition AND kafka_offset = :offset)
    """
)
_CORRECTED: Final = text(
    """
    SELECT id FROM pool.correction
     WHERE tenant_id = :tenant AND identity = :identity AND day = :day
    """
)
# What other meters could not count of the event is said again of what counts instead of it. The newest first, as
# letters are replayed: rows are always locked in this order.
_SIBLINGS: Final = text(
    """
    SELECT id FROM pool.dead_letter
     WHERE tenant_id = :tenant AND kind = 'invalid-value' AND source = :source AND event_id = :event_id
       AND kafka_partition = :partition AND kafka_offset = :offset AND replayed_at IS NULL
     ORDER BY id DESC FOR UPDATE
    """
)

_encode = msgspec.json.Encoder(decimal_format="number").encode
_decode = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class Change(msgspec.Struct, frozen=True):
    """What the event should have said: its whole data, or the meter's value alone; nothing where the meter changed."""

    data: dict[str, Any] | None = None
    value: object = None


NO_CHANGE: Final = Change()


async def correct_value(
    session: AsyncSession, row: Row[Any], change: Change, corrections: Corrections
) -> tuple[Accepted, date]:
    """The correction that counts the letter's event for its meter, and the event's day. Nothing is sent.

    Raises NotReplayable.
    """
    event = _decode(row.payload)
    time = msgspec.json.decode(event["time"], type=datetime)
    meter = await _current_meter(session, row.meter_id)
    data = _changed(decode_data(bytes(event["data"])), change, meter)
    _check(meter, data, time)
    asked = {
        "cancels": {"source": row.source, "id": row.event_id, "time": time},
        "replacement": {
            **{name: raw for name, raw in event.items() if name != "subject"},
            "id": str(row.id),
            "data": data,
        },
        "reason": _REASON.format(row.id),
    }
    try:
        [correction] = corrections.read(_encode(asked), row.tenant_id)
    except CorrectionsRefused as error:
        reasons = "; ".join(str(each["msg"]) for each in error.errors or ())
        raise NotReplayable(f"It would be refused: {reasons}.") from None
    day = time.astimezone(UTC).date()
    await _check_stored(session, row, day, correction.id)
    return correction, day


async def siblings(session: AsyncSession, row: Row[Any]) -> list[UUID]:
    """The open letters about the same event, this one included, held until the caller's transaction ends."""
    found = await session.scalars(
        _SIBLINGS,
        {
            "tenant": row.tenant_id,
            "source": row.source,
            "event_id": row.event_id,
            "partition": row.kafka_partition,
            "offset": row.kafka_offset,
        },
    )
    return list(found.all())


async def _current_meter(session: AsyncSession, version_id: UUID) -> CompiledMeter:
    slug: str = await session.scalar(_SLUG, {"id": version_id})
    return CompiledMeter.of((await versions_of(session, slug))[-1])


def _changed(data: Mapping[str, Any], change: Change, meter: CompiledMeter) -> dict[str, Any]:
    if change.data is not None:
        return change.data
    path = meter.meter.definition.value
    if change.value is None or path is None:
        return dict(data)
    try:
        return with_value(data, path, change.value)
    except InvalidPath as error:
        raise NotReplayable(f"The event has no place for the value: {error}. Give its data.") from None


def _check(meter: CompiledMeter, data: Mapping[str, Any], time: datetime) -> None:
    if not meter.matches(data):
        return
    moment = microseconds(time)
    try:
        empty_state(meter.meter.definition.aggregation).observe(meter, data, At(moment, moment, 0, 0))
    except InvalidQuantity as error:
        raise NotReplayable(
            f"The meter {meter.meter.slug} still cannot count it: {error}. Give the value, or the data, that it should "
            "have had, or change the meter."
        ) from None


async def _check_stored(session: AsyncSession, row: Row[Any], day: date, correction: UUID) -> None:
    event = {"tenant": row.tenant_id, "identity": UUID(bytes=identity_of(row.source, row.event_id)), "day": day}
    place = {"partition": row.kafka_partition, "offset": row.kafka_offset}
    if not await session.scalar(_STORED, {**event, **place}):
        raise NotReplayable(f"Its day, {day}, has left PostgreSQL: nothing can count there instead of it.")
    others = (await session.scalars(_CORRECTED, event)).all()
    if any(other != correction for other in others):
        raise NotReplayable(
            f"The event is corrected already, by {others[0]}. What counts instead has letters of its own."
        )
