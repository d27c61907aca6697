"""SQL of logos."""

from uuid import UUID

from sqlalchemy import delete, select
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncSession

from tenant_service.branding.models import LogoRow

# Older ones are what a rollback may need; beyond these they only take room.
KEPT_LOGOS = 10


async def add_logo(session: AsyncSession, row: LogoRow) -> None:
    """Store a logo of a tenant, which becomes its newest one; the oldest ones make room. May be repeated."""
    values = {column.key: getattr(row, column.key) for column in LogoRow.__table__.columns}
    again = {"created_at": row.created_at}
    await session.execute(
        upsert(LogoRow).values(values).on_conflict_do_update(index_elements=["tenant_id", "sha256"], set_=again)
    )


async def drop_old_logos(session: AsyncSession, tenant_id: UUID) -> None:
    """Keep the newest logos of a tenant."""
    newest = (
        select(LogoRow.sha256)
        .where(LogoRow.tenant_id == tenant_id)
        .order_by(LogoRow.created_at.desc(), LogoRow.sha256)
        .limit(KEPT_LOGOS)
    )
    await session.execute(
        delete(LogoRow)
        .where(LogoRow.tenant_id == tenant_id, LogoRow.sha256.not_in(newest))
        .execution_options(synchronize_session=False)
    )


async def find_logo(session: AsyncSession, sha256: bytes, tenant_id: UUID | None = None) -> LogoRow | None:
    """The picture with this content, of that tenant where one is given."""
    statement = select(LogoRow).where(LogoRow.sha256 == sha256).limit(1)
    if tenant_id is not None:
        statement = statement.where(LogoRow.tenant_id == tenant_id)
    return (await session.scalars(statement)).one_or_none()
