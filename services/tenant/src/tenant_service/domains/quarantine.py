"""SQL of names that are held back. The caller opens the transaction and commits it."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import delete
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncSession

from tenant_service.domain.quarantine import NameKind, Quarantine, check_takeable
from tenant_service.domains.models import QuarantinedNameRow


async def hold_back(session: AsyncSession, kind: NameKind, name: str, *, tenant_id: UUID, until: datetime) -> None:
    """Keep a name that the tenant gives up for it alone until then; may be repeated."""
    insert = upsert(QuarantinedNameRow).values(kind=kind, name=name, tenant_id=tenant_id, until=until)
    new = {"tenant_id": insert.excluded.tenant_id, "until": insert.excluded.until}
    keys = [QuarantinedNameRow.kind, QuarantinedNameRow.name]
    await session.execute(insert.on_conflict_do_update(index_elements=keys, set_=new))


async def check_name(session: AsyncSession, kind: NameKind, name: str, *, by: UUID, now: datetime) -> None:
    """Raises `NameQuarantined` where the name is held back from the tenant `by`."""
    row = await session.get(QuarantinedNameRow, (kind, name))
    held = None if row is None else Quarantine(row.tenant_id, row.until)
    check_takeable(held, by=by, now=now)


async def let_go(session: AsyncSession, *, now: datetime) -> None:
    """Forget the names whose time is over."""
    await session.execute(delete(QuarantinedNameRow).where(QuarantinedNameRow.until <= now))
