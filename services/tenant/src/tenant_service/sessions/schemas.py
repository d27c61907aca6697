"""What comes in over HTTP and what goes out."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from tenant_service.tenants.schemas import EmailAddress

TenantId = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=r"^[^\x00]+$")]
Code = Annotated[str, StringConstraints(min_length=1, max_length=200)]


class CodeCreate(BaseModel):
    model_config = ConfigDict(extra="forbid")

    next: Annotated[str, StringConstraints(max_length=2000)] | None = Field(
        None, description="Where the browser goes after signing in."
    )


class PersonCodeCreate(CodeCreate):
    email: EmailAddress
    tenant_id: TenantId | None = Field(None, description="The id or external id of the tenant to sign in to.")


class CodeOut(BaseModel):
    code: str
    url: str = Field(description="The sign-in page with the code filled in.")
    expires_at: datetime


class SessionCreate(BaseModel):
    model_config = ConfigDict(extra="forbid")

    code: Code = Field(repr=False)


class SessionSwitch(BaseModel):
    model_config = ConfigDict(extra="forbid")

    tenant_id: TenantId = Field(description="The id or external id of the tenant.")


class SessionOut(BaseModel):
    id: UUID
    subject: str
    tenant_id: UUID | None = Field(description="The one tenant of the session; null for an operator's.")
    scopes: list[str]
    expires_at: datetime
    csrf_token: str = Field(description="To be sent as X-CSRF-Token with every write.")
