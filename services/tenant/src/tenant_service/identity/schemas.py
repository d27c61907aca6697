"""What comes in over HTTP and what goes out."""

from datetime import datetime
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from tenant_service.instants import Instant
from tenant_service.models import ApiKeyRow

API_KEY_GRANT = "urn:tenantry:api-key"

Secret = Annotated[str, StringConstraints(min_length=1, max_length=200)]
TenantScope = Literal["tenant:admin", "tenant:write", "tenant:read"]


class ClientCredentials(BaseModel):
    """RFC 6749, 4.4; the client may also authenticate with HTTP Basic."""

    model_config = ConfigDict(extra="forbid")

    grant_type: Literal["client_credentials"]
    client_id: Secret
    client_secret: Secret = Field(repr=False)
    audience: str | None = None
    scope: str | None = None


class ApiKeyExchange(BaseModel):
    """A key against a token of its tenant."""

    model_config = ConfigDict(extra="forbid")

    grant_type: Literal["urn:tenantry:api-key"]
    api_key: Secret = Field(repr=False)
    audience: str | None = None
    scope: str | None = None


class TokenOut(BaseModel):
    access_token: str
    token_type: Literal["Bearer"] = "Bearer"  # noqa: S105 - RFC 6749, 5.1
    expires_in: int = Field(description="Seconds.")
    scope: str


class KeySetOut(BaseModel):
    keys: list[dict[str, Any]]


class SigningKeyOut(BaseModel):
    kid: str


class ApiKeyCreate(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, StringConstraints(min_length=1, max_length=100, strip_whitespace=True, pattern=r"^[^\x00]+$")]
    scopes: Annotated[list[TenantScope], Field(min_length=1, max_length=3)]
    expires_at: Instant | None = None


class ApiKeyOut(BaseModel):
    id: UUID
    name: str
    prefix: str = Field(description="How the key begins.")
    scopes: list[str]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None

    @classmethod
    def of(cls, row: ApiKeyRow, **more: str) -> Self:
        return cls(
            id=row.id,
            name=row.name,
            prefix=row.prefix,
            scopes=row.scopes,
            created_at=row.created_at,
            expires_at=row.expires_at,
            revoked_at=row.revoked_at,
            **more,
        )


class NewApiKeyOut(ApiKeyOut):
    key: str = Field(description="The key itself. It is shown this once.")
