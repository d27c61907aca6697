"""POST and GET /v1/cuts."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from fastapi import APIRouter, Depends
from pydantic import BaseModel

from tenantry.http import IdempotentRoute, require_scope
from tenantry.identity import Scope
from usage_service.dependencies import CurrentEnds, Idempotent, SystemTransaction
from usage_service.publishing.cuts import Cut, create_cut, get_cut

router = APIRouter(
    prefix="/v1/cuts",
    tags=["cuts"],
    dependencies=[Depends(require_scope(Scope.PLATFORM, Scope.SERVICE))],
    route_class=IdempotentRoute,
)


class CutOut(BaseModel):
    id: UUID
    state: str
    offsets: dict[str, int]
    created_at: datetime
    covered_at: datetime | None
    published_at: datetime | None

    @classmethod
    def of(cls, cut: Cut) -> CutOut:
        return cls(
            id=cut.id,
            state=cut.state,
            offsets=cut.offsets,
            created_at=cut.created_at,
            covered_at=cut.covered_at,
            published_at=cut.published_at,
        )


@router.post("", status_code=202, dependencies=[Idempotent])
async def create(ends: CurrentEnds, session: SystemTransaction) -> CutOut:
    """A cut at the events that Kafka has now; its record follows in every partition of usage.rollups.v1."""
    offsets = {str(partition): end for partition, end in sorted((await ends.end_offsets()).items())}
    return CutOut.of(await create_cut(session, offsets))


@router.get("/{cut_id}")
async def get(cut_id: UUID, session: SystemTransaction) -> CutOut:
    return CutOut.of(await get_cut(session, cut_id))
