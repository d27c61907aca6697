"""What comes in over HTTP and what goes out."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, Field, StringConstraints

from tenant_service.domain.findings import FindingCode, Repair, Severity
from tenant_service.reconciling.models import FindingRow, Phase, ReconciliationRow
from tenant_service.tenants.schemas import Input, Text


class ReconciliationRequest(Input):
    tenant: Annotated[Text, StringConstraints(min_length=1, max_length=128)] | None = Field(
        None, description="The tenant's id or external id; null: all tenants."
    )
    repair: bool = Field(True, description="False: only say what is found.")


class ReconciliationOut(BaseModel):
    """How many findings it has opened, repaired and closed so far; `ended` is the last state."""

    id: UUID
    tenant_id: UUID | None
    repair: bool
    state: Phase
    requested_by: str
    opened: int
    repaired: int
    closed: int
    created_at: datetime
    ended_at: datetime | None

    @classmethod
    def of(cls, row: ReconciliationRow) -> "ReconciliationOut":
        return cls.model_validate(row, from_attributes=True)


class FindingOut(BaseModel):
    """`repair` is what the reconciler does about it by itself, `run_id` the run that does it; see the tenant's runs."""

    id: UUID
    code: FindingCode
    severity: Severity
    service: str | None = Field(description="null: about the registry and its topics.")
    subject: str
    tenant_id: UUID | None
    detail: str
    repair: Repair
    opened_at: datetime
    seen_at: datetime
    repaired_at: datetime | None
    run_id: UUID | None
    closed_at: datetime | None

    @classmethod
    def of(cls, row: FindingRow) -> "FindingOut":
        return cls(
            id=row.id,
            code=FindingCode(row.code),
            severity=Severity(row.severity),
            service=row.service or None,
            subject=row.subject,
            tenant_id=row.tenant_id,
            detail=row.detail,
            repair=Repair(row.repair),
            opened_at=row.opened_at,
            seen_at=row.seen_at,
            repaired_at=row.repaired_at,
            run_id=row.run_id,
            closed_at=row.closed_at,
        )
