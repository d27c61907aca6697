"""What comes in over HTTP and what goes out."""

from datetime import datetime
from typing import Annotated, Self
from uuid import UUID

from pydantic import BaseModel, Field, StringConstraints

from tenant_service.instants import Instant
from tenant_service.revocations.models import TokenRevocationRow
from tenant_service.tenants.schemas import Input, Note

Claim = Annotated[str, StringConstraints(min_length=1, max_length=500, pattern=r"^[^\x00]+$")]


class RevocationCreate(Input):
    issuer: Claim = Field(description="The claim `iss` of the tokens, to the letter.")
    subject: Claim = Field(description="Their claim `sub`.")
    not_before: Instant | None = Field(
        None, description="Tokens issued earlier are refused; left out: now. At most five minutes ahead."
    )
    reason: Note = ""


class RevocationOut(BaseModel):
    id: UUID
    tenant_id: UUID | None
    issuer: str
    subject: str
    not_before: datetime
    reason: str
    created_at: datetime
    created_by: str
    expires_at: datetime = Field(description="When it is forgotten, as no such token can be left.")

    @classmethod
    def of(cls, row: TokenRevocationRow) -> Self:
        return cls(
            id=row.id,
            tenant_id=row.tenant_id,
            issuer=row.issuer,
            subject=row.subject,
            not_before=row.not_before,
            reason=row.reason,
            created_at=row.created_at,
            created_by=row.created_by,
            expires_at=row.expires_at,
        )
