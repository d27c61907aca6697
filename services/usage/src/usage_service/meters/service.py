"""Use cases of meters. The caller opens the transaction and commits it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from msgspec.structs import replace
from sqlalchemy.ext.asyncio import AsyncSession

from tenantry import Conflict, InvalidRequest, NotFound, StaleVersion
from usage_service.backfilling.jobs import add_job
from usage_service.domain.errors import InvalidDefinition
from usage_service.domain.filters import canonical_filter
from usage_service.domain.identity import canonical_json
from usage_service.domain.instants import instant, microseconds, rfc3339
from usage_service.domain.meters import Meter, MeterDefinition, check_definition
from usage_service.meters.repository import add_version, next_catalogue_version, versions_of


class MeterFixed(Conflict):
    """What a meter counts cannot be changed under the same name: its windows would no longer add up."""

    type = "meter-fixed"
    title = "What a meter has counted is fixed"


async def put_meter(
    session: AsyncSession,
    slug: str,
    definition: MeterDefinition,
    *,
    expected_version: int | None,
    backfill_from: datetime | None = None,
) -> Meter:
    """The meter as defined: as it is where it is equal, else a new version that counts from now on.

    An event that is received after the commit is counted by it; what was counted before stays as it was counted. With
    `backfill_from`, the meter's first version counts as well what happened since then and was stored before it was
    made: that is begun here and done by the keeper of backfills. May be repeated. Raises InvalidRequest, MeterFixed,
    and StaleVersion where another version than the expected is current.
    """
    try:
        definition = replace(definition, filter=canonical_filter(definition.filter, definition.group_by))
        check_definition(slug, definition)
    except InvalidDefinition as error:
        raise _invalid(error.loc, error.reason) from error
    since = await next_catalogue_version(session)
    versions = await versions_of(session, slug)
    current = versions[-1] if versions else None
    if expected_version is not None and (current is None or current.version != expected_version):
        raise StaleVersion(f"The meter is at version {current.version if current else 0}, not {expected_version}.")
    # As JSON, because 1 and true are equal in Python.
    if current is None or canonical_json(current.definition) != canonical_json(definition):
        if current is not None:
            _check_change(current, definition, backfill_from)
        current = await add_version(session, slug, definition, previous=versions, since=since)
    if backfill_from is not None:
        await _backfill(session, versions or [current], backfill_from)
    return current


async def get_versions(session: AsyncSession, slug: str) -> list[Meter]:
    """All versions of a meter, oldest first. Raises NotFound."""
    versions = await versions_of(session, slug)
    if not versions:
        raise NotFound("There is no such meter.")
    return versions


def check_backfill(backfill_from: datetime, now: datetime) -> None:
    """Raises InvalidRequest for an instant from which nothing can have been stored."""
    if not 1900 <= backfill_from.year <= now.year + 1 or backfill_from > now:
        raise _invalid("backfill_from", "must lie between the year 1900 and now")


def _check_change(current: Meter, definition: MeterDefinition, backfill_from: datetime | None) -> None:
    fixed = (current.definition.event_type, current.definition.aggregation)
    if fixed != (definition.event_type, definition.aggregation):
        raise MeterFixed("Make another meter for another event type or aggregation.")
    if backfill_from is not None:
        raise MeterFixed(
            "A changed meter counts from now on: it never changes windows that were counted before. Make another meter"
            " with backfill_from, or change this one without it."
        )


async def _backfill(session: AsyncSession, versions: Sequence[Meter], backfill_from: datetime) -> None:
    first = versions[0]
    if first.backfill_from is None or microseconds(backfill_from) < first.backfill_from:
        last = None if first.backfill_from is None else instant(first.backfill_from)
        await add_job(session, first.id, first.definition.event_type, backfill_from, last)
    elif microseconds(backfill_from) > first.backfill_from:
        counted = rfc3339(instant(first.backfill_from))
        raise MeterFixed(f"The meter counts what was stored before it from {counted} on, which cannot be taken back.")


def _invalid(loc: str, reason: str) -> InvalidRequest:
    return InvalidRequest(f"{loc}: {reason}", errors=[{"loc": ["body", loc], "msg": reason}])
