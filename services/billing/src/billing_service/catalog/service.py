"""Use cases of the catalogue. Each takes the caller's transaction and does not commit."""

from typing import NamedTuple

from sqlalchemy.ext.asyncio import AsyncSession

from billing_service.catalog import repository
from billing_service.catalog.repository import PlanVersion
from billing_service.domain.plans import Plan
from tenantry import Clock, NotFound, StaleVersion


class PutPlan(NamedTuple):
    version: PlanVersion
    created: bool


async def put_plan(
    session: AsyncSession, code: str, plan: Plan, *, clock: Clock, created_by: str, expected: int | None = None
) -> PutPlan:
    """Make `plan` the latest version of `code`. The same content as the latest is that version: repeatable.

    `expected` is the latest version the caller has seen; another one raises StaleVersion.
    """
    await repository.lock_code(session, code)
    latest = await repository.latest_version(session, code)
    current = 0 if latest is None else latest.version
    if expected is not None and expected != current:
        raise StaleVersion(f"the latest version of plan {code!r} is {current}")
    if latest is not None and latest.digest == plan.digest():
        return PutPlan(latest, created=False)
    version = PlanVersion(code, current + 1, plan.digest(), plan, clock.now())
    await repository.insert_version(session, version, created_by)
    return PutPlan(version, created=True)


async def get_plan(session: AsyncSession, code: str, version: int | None = None) -> PlanVersion:
    """A version of a plan, the latest by default; raises NotFound."""
    found = (
        await repository.latest_version(session, code)
        if version is None
        else await repository.plan_version(session, code, version)
    )
    if found is None:
        raise NotFound("no such plan")
    return found
