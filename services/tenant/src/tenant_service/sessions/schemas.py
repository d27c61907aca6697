"""What comes in over HTTP and what goes out."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

Code = Annotated[str, StringConstraints(min_length=1, max_length=200)]


class CodeCreate(BaseModel):
    model_config = ConfigDict(extra="forbid")

    next: Annotated[str, StringConstraints(max_length=2000)] | None = Field(
        None, description="Where the browser goes after signing in."
    )


class CodeOut(BaseModel):
    code: str
    url: str = Field(description="The sign-in page with the code filled in.")
    expires_at: datetime


class SessionCreate(BaseModel):
    model_config = ConfigDict(extra="forbid")

    code: Code = Field(repr=False)


class SessionOut(BaseModel):
    id: UUID
    subject: str
    scopes: list[str]
    expires_at: datetime
    csrf_token: str = Field(description="To be sent as X-CSRF-Token with every write.")
