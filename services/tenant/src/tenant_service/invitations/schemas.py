"""What comes in over HTTP and what goes out."""

from datetime import datetime
from typing import Literal, Self
from uuid import UUID

from pydantic import BaseModel, Field

from tenant_service.invitations.models import InvitationRow
from tenant_service.invitations.service import Delivery
from tenant_service.members.schemas import Roles
from tenant_service.tenants.schemas import EmailAddress, Input

State = Literal["open", "accepted", "revoked", "expired"]


class InvitationCreate(Input):
    email: EmailAddress
    roles: Roles
    delivery: Delivery = Field(
        "answer",
        description="answer: the code stands in the answer, this once. mailer: the company's mailer fetches it.",
    )


class InvitationOut(BaseModel):
    id: UUID
    email: str
    roles: list[str]
    delivery: Delivery
    state: State
    invited_by: str
    created_at: datetime
    expires_at: datetime
    accepted_at: datetime | None
    revoked_at: datetime | None
    member_id: UUID | None

    @classmethod
    def of(cls, row: InvitationRow, now: datetime, **more: str | None) -> Self:
        return cls.model_validate(
            {
                "id": row.id,
                "email": row.email,
                "roles": row.roles,
                "delivery": row.delivery,
                "state": _state(row, now),
                "invited_by": row.invited_by,
                "created_at": row.created_at,
                "expires_at": row.expires_at,
                "accepted_at": row.accepted_at,
                "revoked_at": row.revoked_at,
                "member_id": row.member_id,
                **more,
            }
        )


class SentInvitationOut(InvitationOut):
    code: str | None = Field(description="To be sent to POST /v1/sessions. Shown this once; null: the mailer has it.")
    url: str | None = Field(description="The sign-in page with the code filled in.")


class InvitationMailOut(BaseModel):
    """What a mail needs."""

    email: str
    code: str
    url: str
    expires_at: datetime


def _state(row: InvitationRow, now: datetime) -> State:
    if row.accepted_at is not None:
        return "accepted"
    if row.revoked_at is not None:
        return "revoked"
    return "expired" if row.expires_at <= now else "open"
