"""SQL of flags."""

from collections.abc import Collection, Sequence

import msgspec
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from tenant_service.features.models import FlagRow, FlagVersionRow
from tenantry import NotFound
from tenantry.features import Flag


def flag_document(row: FlagRow | FlagVersionRow) -> Flag:
    """The flag as the other services see it: the value of `platform.state.v1`, key `flag/<name>`."""
    return msgspec.convert({**row.definition, "name": row.name, "version": row.version}, Flag)


async def find_flag(session: AsyncSession, name: str, *, lock: bool = False) -> FlagRow:
    """The present definition. Raises `NotFound`."""
    row = await session.get(FlagRow, name, with_for_update=lock or None, populate_existing=lock)
    if row is None:
        raise NotFound
    return row


async def flags_named(session: AsyncSession, names: Collection[str]) -> dict[str, Flag]:
    """Those of `names` that are flags."""
    rows = await session.scalars(select(FlagRow).where(FlagRow.name.in_(names)))
    return {row.name: flag_document(row) for row in rows}


async def list_flags(session: AsyncSession, *, after: str | None, limit: int) -> Sequence[FlagRow]:
    """At most `limit` flags by name, after `after`."""
    statement = select(FlagRow).order_by(FlagRow.name).limit(limit)
    if after is not None:
        statement = statement.where(FlagRow.name > after)
    return (await session.scalars(statement)).all()


async def list_versions(
    session: AsyncSession, name: str, *, before: int | None, limit: int
) -> Sequence[FlagVersionRow]:
    """At most `limit` definitions of a flag, the newest first."""
    statement = select(FlagVersionRow).where(FlagVersionRow.name == name)
    if before is not None:
        statement = statement.where(FlagVersionRow.version < before)
    return (await session.scalars(statement.order_by(FlagVersionRow.version.desc()).limit(limit))).all()
