"""All SQL of the catalogue. Nothing here commits."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from billing_service.domain.plans import Plan

_LOCK: Final = text("SELECT pg_advisory_xact_lock(hashtextextended('plan/' || CAST(:code AS text), 0))")
_COLUMNS: Final = "code, version, digest, CAST(document AS text) AS document, created_at"
_LATEST: Final = text(
    f"SELECT {_COLUMNS} FROM system.plan_version WHERE code = :code ORDER BY version DESC LIMIT 1"  # noqa: S608 - constant columns
)
_ONE: Final = text(
    f"SELECT {_COLUMNS} FROM system.plan_version WHERE code = :code AND version = :version"  # noqa: S608 - constant columns
)
_PAGE: Final = text(
    f"""
    SELECT DISTINCT ON (code) {_COLUMNS} FROM system.plan_version
     WHERE code > :after ORDER BY code, version DESC LIMIT :limit
    """  # noqa: S608 - constant columns
)
_MANY: Final = text(
    f"""
    SELECT {_COLUMNS} FROM system.plan_version
      JOIN unnest(CAST(:codes AS text[]), CAST(:versions AS int[])) AS wanted (code, version) USING (code, version)
    """  # noqa: S608 - constant columns
)
_INSERT: Final = text(
    """
    INSERT INTO system.plan_version (code, version, digest, document, created_at, created_by)
    VALUES (:code, :version, :digest, CAST(:document AS jsonb), :created_at, :created_by)
    """
)


@dataclass(frozen=True, slots=True)
class PlanVersion:
    code: str
    version: int
    digest: str
    plan: Plan
    created_at: datetime


def _plan_version(row: object) -> PlanVersion:
    return PlanVersion(
        row.code,  # type: ignore[attr-defined] # a Row of the columns above
        row.version,  # type: ignore[attr-defined]
        row.digest,  # type: ignore[attr-defined]
        Plan.model_validate_json(row.document),  # type: ignore[attr-defined]
        row.created_at,  # type: ignore[attr-defined]
    )


async def lock_code(session: AsyncSession, code: str) -> None:
    """Let one writer at a time decide about the next version of a plan, until the transaction ends."""
    await session.execute(_LOCK, {"code": code})


async def latest_version(session: AsyncSession, code: str) -> PlanVersion | None:
    row = (await session.execute(_LATEST, {"code": code})).one_or_none()
    return None if row is None else _plan_version(row)


async def plan_version(session: AsyncSession, code: str, version: int) -> PlanVersion | None:
    row = (await session.execute(_ONE, {"code": code, "version": version})).one_or_none()
    return None if row is None else _plan_version(row)


async def latest_versions(session: AsyncSession, after: str, limit: int) -> list[PlanVersion]:
    """The latest version of each plan whose code comes after `after`, by code."""
    return [_plan_version(row) for row in await session.execute(_PAGE, {"after": after, "limit": limit})]


async def plan_versions(session: AsyncSession, wanted: Iterable[tuple[str, int]]) -> dict[tuple[str, int], Plan]:
    """The plans of the given (code, version) pairs; unknown ones are absent."""
    pairs = sorted(set(wanted))
    rows = await session.execute(
        _MANY, {"codes": [code for code, _ in pairs], "versions": [version for _, version in pairs]}
    )
    return {(row.code, row.version): Plan.model_validate_json(row.document) for row in rows}


async def insert_version(session: AsyncSession, version: PlanVersion, created_by: str) -> None:
    await session.execute(
        _INSERT,
        {
            "code": version.code,
            "version": version.version,
            "digest": version.digest,
            "document": version.plan.model_dump_json(),
            "created_at": version.created_at,
            "created_by": created_by,
        },
    )
