"""What comes in over HTTP and what goes out."""

from datetime import datetime
from typing import Annotated, Literal, Self
from uuid import UUID

from pydantic import BaseModel, StringConstraints

from tenant_service.domain.domain_claims import challenge_name
from tenant_service.domains.models import DomainClaimRow
from tenant_service.tenants.schemas import Input


class DomainCreate(Input):
    domain: Annotated[str, StringConstraints(min_length=1, max_length=300)]


class ChallengeOut(BaseModel):
    """The record that proves the claim."""

    name: str
    type: Literal["TXT"] = "TXT"
    value: str


class DomainOut(BaseModel):
    id: UUID
    domain: str
    state: Literal["pending", "verified", "failed"]
    challenge: ChallengeOut
    created_at: datetime
    verified_at: datetime | None
    checked_at: datetime | None
    failing_since: datetime | None

    @classmethod
    def of(cls, row: DomainClaimRow) -> Self:
        return cls.model_validate(
            {
                "id": row.id,
                "domain": row.domain,
                "state": row.state,
                "challenge": ChallengeOut(name=challenge_name(row.domain), value=row.challenge),
                "created_at": row.created_at,
                "verified_at": row.verified_at,
                "checked_at": row.checked_at,
                "failing_since": row.failing_since,
            }
        )
