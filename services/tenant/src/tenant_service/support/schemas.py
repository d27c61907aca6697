"""What comes in over HTTP and what goes out."""

from datetime import datetime
from typing import Annotated, Literal, Self
from uuid import UUID

from pydantic import BaseModel, Field, StringConstraints

from tenant_service.support.models import SupportGrantRow
from tenant_service.tenants.schemas import Input

MAX_MINUTES = 30


class SupportCreate(Input):
    reason: Annotated[
        str, StringConstraints(min_length=1, max_length=2000, strip_whitespace=True, pattern=r"^[^\x00]+$")
    ]
    minutes: int = Field(MAX_MINUTES, strict=True, ge=1, le=MAX_MINUTES)
    access: Literal["read", "write"] = "read"


class SupportGrantOut(BaseModel):
    id: UUID
    operator: str
    reason: str
    scopes: list[str]
    created_at: datetime
    expires_at: datetime
    ended_at: datetime | None
    ended_by: str | None

    @classmethod
    def of(cls, row: SupportGrantRow) -> Self:
        return cls(
            id=row.id,
            operator=row.operator,
            reason=row.reason,
            scopes=row.scopes,
            created_at=row.created_at,
            expires_at=row.expires_at,
            ended_at=row.ended_at,
            ended_by=row.ended_by,
        )
