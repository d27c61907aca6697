"""POST and GET /v1/cuts; POST /v1/rollups/republish."""

from __future__ import annotations

from datetime import datetime
from typing import Final
from uuid import UUID

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field

from tenantry.http import IdempotentRoute, decode_cursor, encode_cursor, require_scope
from tenantry.identity import Scope
from usage_service.dependencies import CurrentEnds, Idempotent, SystemTransaction
from usage_service.publishing.cuts import Cut, create_cut, get_cut
from usage_service.publishing.republishing import BEGINNING, Place, queue_page

router = APIRouter(
    prefix="/v1/cuts",
    tags=["cuts"],
    dependencies=[Depends(require_scope(Scope.PLATFORM, Scope.SERVICE))],
    route_class=IdempotentRoute,
)


rollups = APIRouter(prefix="/v1/rollups", tags=["cuts"], dependencies=[Depends(require_scope(Scope.PLATFORM))])

_PAGES: Final = "rollups/republish"


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


class RepublishIn(BaseModel):
    """All tenants without one; `cursor` is the `next_cursor` of the page before."""

    model_config = ConfigDict(extra="forbid")

    tenant_id: UUID | None = None
    cursor: str | None = Field(default=None, max_length=2048)


class RepublishedOut(BaseModel):
    """How many rollups were queued: 0 while many changes wait to be published. `next_cursor` is null at the end."""

    queued: int
    next_cursor: str | None


@rollups.post("/republish", status_code=202)
async def republish(asked: RepublishIn, session: SystemTransaction) -> RepublishedOut:
    """Has a page of rollups published again on usage.rollups.v1, with the versions that they have. May be repeated."""
    after = BEGINNING if asked.cursor is None else decode_cursor(asked.cursor, Place, of=_PAGES)
    queued, end = await queue_page(await session.connection(), asked.tenant_id, after)
    return RepublishedOut(queued=queued, next_cursor=None if end is None else encode_cursor(end, of=_PAGES))
