"""Use cases of meters. The caller opens the transaction and commits it."""

from __future__ import annotations

from sqlalchemy.ext.asyncio import AsyncSession

from tenantry import Conflict, InvalidRequest, NotFound, StaleVersion
from usage_service.domain.errors import InvalidDefinition
from usage_service.domain.meters import Meter, MeterDefinition, check_definition
from usage_service.meters.repository import add_version, next_catalogue_version, versions_of


class MeterFixed(Conflict):
    """What a meter counts cannot be changed under the same name: its windows would no longer add up."""

    type = "meter-fixed"
    title = "The event type and aggregation of a meter are fixed"


async def put_meter(
    session: AsyncSession, slug: str, definition: MeterDefinition, *, expected_version: int | None
) -> Meter:
    """The meter as defined: as it is where it is equal, else a new version that counts from now on.

    An event that is received after the commit is counted by it; what was counted before stays as it was counted. May be
    repeated. Raises InvalidRequest, MeterFixed, and StaleVersion where another version than the expected is current.
    """
    try:
        check_definition(slug, definition)
    except InvalidDefinition as error:
        raise InvalidRequest(
            f"{error.loc}: {error.reason}", errors=[{"loc": ["body", error.loc], "msg": error.reason}]
        ) from error
    since = await next_catalogue_version(session)
    versions = await versions_of(session, slug)
    current = versions[-1] if versions else None
    if expected_version is not None and (current is None or current.version != expected_version):
        raise StaleVersion(f"The meter is at version {current.version if current else 0}, not {expected_version}.")
    if current is not None:
        if current.definition == definition:
            return current
        fixed = (current.definition.event_type, current.definition.aggregation)
        if fixed != (definition.event_type, definition.aggregation):
            raise MeterFixed("Make another meter for another event type or aggregation.")
    return await add_version(session, slug, definition, previous=versions, since=since)


async def get_versions(session: AsyncSession, slug: str) -> list[Meter]:
    """All versions of a meter, oldest first. Raises NotFound."""
    versions = await versions_of(session, slug)
    if not versions:
        raise NotFound("There is no such meter.")
    return versions
