"""POST /v1/evidence."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Request
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field
from sqlalchemy import Row

from tenantry import InvalidRequest, TenantNotFound
from tenantry.http import require_scope
from tenantry.identity import Scope
from usage_service.dependencies import CurrentArchive, CurrentTenancy
from usage_service.domain.errors import InvalidWindow
from usage_service.domain.quantities import number_text
from usage_service.domain.rollups import RollupState
from usage_service.domain.windows import check_range
from usage_service.evidence.repository import expired_days
from usage_service.evidence.service import days_of, find_evidence, has_values
from usage_service.meters.service import get_versions
from usage_service.retention.policy import Terms

router = APIRouter(
    prefix="/v1/evidence", tags=["usage"], dependencies=[Depends(require_scope(Scope.PLATFORM, Scope.SERVICE))]
)


class EvidenceIn(BaseModel):
    """`cut`: by partition, the offset at which a cut was made, as `GET /v1/cuts/{id}` has them."""

    model_config = ConfigDict(extra="forbid")

    tenant_id: UUID
    meter: Annotated[str, Field(max_length=63, pattern=r"^[^\x00]*$")]
    start: AwareDatetime = Field(alias="from")
    to: AwareDatetime
    cut: dict[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0)]]


class TallyOut(BaseModel):
    """`sum` is null for a meter that counts."""

    events: str
    sum: str | None

    @classmethod
    def of(cls, state: RollupState, *, sums: bool) -> TallyOut:
        return cls(events=str(state.count), sum=number_text(state.sum or 0) if sums else None)


class EventName(BaseModel):
    source: str
    id: str


class CorrectionOut(BaseModel):
    id: UUID
    cancels: EventName
    replacement: EventName | None
    reason: str | None
    received_at: datetime

    @classmethod
    def of(cls, row: Row[Any]) -> CorrectionOut:
        replaced = None
        if row.replacement_id is not None:
            replaced = EventName(source=row.replacement_source, id=row.replacement_id)
        return cls(
            id=row.id,
            cancels=EventName(source=row.source, id=row.event_id),
            replacement=replaced,
            reason=row.reason,
            received_at=row.received_at,
        )


class EvidenceOut(BaseModel):
    """What the events in the cut came to when it was made, and what all come to now, from raw events alone.

    On `expired_days` raw events may be gone: what they came to cannot be told any more. `corrections` took events back
    that are in the cut.
    """

    at_cut: TallyOut
    now: TallyOut
    corrections: list[CorrectionOut]
    expired_days: list[date]


@router.post("")
async def find(body: EvidenceIn, request: Request, tenancy: CurrentTenancy, archive: CurrentArchive) -> EvidenceOut:
    """What the raw events of a tenant bear out of a meter's figure, wherever they are kept. Reads all of them."""
    try:
        check_range(body.start, body.to)
    except InvalidWindow as error:
        raise InvalidRequest(error.reason, errors=[{"loc": ["body", error.loc], "msg": error.reason}]) from error
    tenant = tenancy.directory.get(body.tenant_id)
    if tenant is None:
        raise TenantNotFound("There is no such tenant.")
    span = (body.start, body.to)
    terms: Terms = request.app.state.terms
    kept_from = (datetime.now(UTC) - terms.archive).date()
    async with tenancy.databases.tenant_session(tenant, read_only=True) as session:
        versions = await get_versions(session, body.meter)
        found = await find_evidence(session, archive, tenant.id, versions, span, body.cut)
    # After the events: what expires meanwhile is said to have expired.
    async with tenancy.databases.system_session() as system:
        expired = await expired_days(system, days_of(span), kept_from)
    sums = has_values(versions)
    return EvidenceOut(
        at_cut=TallyOut.of(found.at_cut, sums=sums),
        now=TallyOut.of(found.now, sums=sums),
        corrections=[CorrectionOut.of(row) for row in found.corrections],
        expired_days=list(expired),
    )
