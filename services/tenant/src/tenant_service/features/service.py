"""Use cases of flags. The caller opens the transaction and commits it."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import insert
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncSession

from tenant_service import audit
from tenant_service.audit import Actor
from tenant_service.config.parties import Subject
from tenant_service.config.reading import effective
from tenant_service.features import repository
from tenant_service.features.models import FlagRow, FlagVersionRow
from tenant_service.features.repository import flag_document
from tenant_service.publication import publish_flag
from tenant_service.tiers.repository import UnknownTier, known_tiers
from tenantry import Conflict, StaleVersion
from tenantry.config import same
from tenantry.features import FEATURES, Evaluation, Flag, evaluate


class VariantsFixed(Conflict):
    """Layers name variants: one that is gone would silently become the default."""

    type = "variants-fixed"
    title = "Variants can be added and given another value, not taken away"


async def put_flag(
    session: AsyncSession,
    name: str,
    definition: Mapping[str, Any],
    *,
    expected_version: int | None,
    actor: Actor,
    now: datetime,
) -> tuple[Flag, bool]:
    """Make `definition` the present one of the flag, and say whether the flag is new. Repeating changes nothing.

    Raises `StaleVersion`, `VariantsFixed`, `UnknownTier`.
    """
    # Insert first: whoever comes second waits for the first one's commit and then finds a row to lock.
    version_zero = {"name": name, "version": 0, "definition": dict(definition), "updated_at": now}
    inserted = upsert(FlagRow).values(version_zero).on_conflict_do_nothing().returning(FlagRow.name)
    created = (await session.execute(inserted)).scalar_one_or_none() is not None
    row = await repository.find_flag(session, name, lock=True)
    if expected_version is not None and expected_version != row.version:
        raise StaleVersion(f"The present version is {row.version}")
    if not created and same(row.definition, definition):
        return flag_document(row), False
    missing = sorted(row.definition["variants"].keys() - definition["variants"].keys())
    if missing:
        raise VariantsFixed(f"The flag has these variants: {', '.join(missing)}")
    await _check_tiers(session, definition["tiers"])
    row.definition, row.version, row.updated_at = dict(definition), row.version + 1, now
    await session.flush()
    version = {"name": name, "version": row.version, "definition": dict(definition), "created_at": now}
    await session.execute(insert(FlagVersionRow), [{**version, "created_by": actor.subject}])
    flag = flag_document(row)
    await publish_flag(session, flag)
    detail = {"version": row.version, **definition}
    await audit.record(session, actor, "flag.put", target=f"flag/{name}", now=now, detail=detail)
    return flag, created


async def _check_tiers(session: AsyncSession, tiers: Collection[str]) -> None:
    if unknown := sorted(set(tiers) - await known_tiers(session, tiers)):
        raise UnknownTier(unknown[0], loc=["body", "tiers", unknown[0]])


async def evaluate_flags(
    session: AsyncSession, subject: Subject, flags: Sequence[Flag], *, now: datetime
) -> list[Evaluation]:
    """What the flags are for a tenant at `now`."""
    found = await effective(session, subject, FEATURES, now=now)
    return [
        evaluate(
            flag,
            tenant_id=subject.tenant.id,
            tier=subject.tenant.tier,
            choice=found.document.get(flag.name),
            source=found.provenance.get(f"/{flag.name}"),
        )
        for flag in flags
    ]
