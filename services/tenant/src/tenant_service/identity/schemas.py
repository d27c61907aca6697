"""What comes in over HTTP and what goes out."""

from datetime import datetime
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from tenant_service.instants import Instant
from tenant_service.models import ApiKeyRow

API_KEY_GRANT = "urn:tenantry:api-key"
EXCHANGE_GRANT = "urn:ietf:params:oauth:grant-type:token-exchange"
SESSION_TOKEN = "urn:tenantry:session"  # noqa: S105 - the name of a type
SUPPORT_TOKEN = "urn:tenantry:support-access"  # noqa: S105 - the name of a type
ACCESS_TOKEN: Literal["urn:ietf:params:oauth:token-type:access_token"] = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105 - the name of a type

Thumbprint = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{43}$")]  # RFC 7638 with SHA-256
Secret = Annotated[str, StringConstraints(min_length=1, max_length=200)]
TenantScope = Literal["tenant:admin", "tenant:write", "tenant:read", "tenant:billing"]
Reference = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=r"^[^\x00]+$")]


class ClientCredentials(BaseModel):
    """RFC 6749, 4.4; the client may also authenticate with HTTP Basic."""

    model_config = ConfigDict(extra="forbid")

    grant_type: Literal["client_credentials"]
    client_id: Secret
    client_secret: Secret = Field(repr=False)
    audience: str | None = None
    scope: str | None = None
    cnf_jkt: Thumbprint | None = Field(default=None, description="thumbprint of the key that the token is to name")


class ApiKeyExchange(BaseModel):
    """A key against a token of its tenant."""

    model_config = ConfigDict(extra="forbid")

    grant_type: Literal["urn:tenantry:api-key"]
    api_key: Secret = Field(repr=False)
    audience: str | None = None
    scope: str | None = None


class TokenExchange(BaseModel):
    """RFC 8693: the session of a signed-in person, or a grant of support access, against a token of one tenant.

    The session is `subject_token`, or the cookie of the request. Of support access, `subject_token` is the id of the
    grant, and the operator who holds it is shown by `actor_token` or by the cookie.
    """

    model_config = ConfigDict(extra="forbid")

    grant_type: Literal["urn:ietf:params:oauth:grant-type:token-exchange"]
    subject_token_type: Literal["urn:tenantry:session", "urn:tenantry:support-access"]
    subject_token: Secret | None = Field(None, repr=False)
    actor_token: Annotated[str, StringConstraints(min_length=1, max_length=4096)] | None = Field(None, repr=False)
    actor_token_type: Literal["urn:ietf:params:oauth:token-type:access_token"] | None = None
    requested_token_type: Literal["urn:ietf:params:oauth:token-type:access_token"] | None = None
    tenant_id: Reference | None = None
    audience: str | None = None
    scope: str | None = None

    @model_validator(mode="after")
    def _parts_belong_together(self) -> Self:
        if (self.actor_token is None) != (self.actor_token_type is None):
            raise ValueError("actor_token and actor_token_type go together")
        if self.subject_token_type == SESSION_TOKEN:
            if self.actor_token is not None:
                raise ValueError("a session has no actor")
            if self.tenant_id is None:
                raise ValueError("name the tenant in tenant_id")
        elif self.subject_token is None:
            raise ValueError("name the grant in subject_token")
        elif self.tenant_id is not None:
            raise ValueError("a grant is for one tenant: leave tenant_id out")
        return self


class TokenOut(BaseModel):
    access_token: str
    token_type: Literal["Bearer"] = "Bearer"  # noqa: S105 - RFC 6749, 5.1
    expires_in: int = Field(description="Seconds.")
    scope: str
    issued_token_type: Literal["urn:ietf:params:oauth:token-type:access_token"] = ACCESS_TOKEN


class KeySetOut(BaseModel):
    keys: list[dict[str, Any]]


class SigningKeyOut(BaseModel):
    kid: str


class ApiKeyCreate(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, StringConstraints(min_length=1, max_length=100, strip_whitespace=True, pattern=r"^[^\x00]+$")]
    scopes: Annotated[list[TenantScope], Field(min_length=1, max_length=4)]
    expires_at: Instant | None = None


class ApiKeyRotate(BaseModel):
    model_config = ConfigDict(extra="forbid")

    overlap_seconds: int = Field(
        3600, strict=True, ge=0, le=30 * 86400, description="For how long the old key is accepted beside the new one."
    )


class KeysUsed(BaseModel):
    """When keys were last used, as a service has seen it."""

    model_config = ConfigDict(extra="forbid")

    last_used_at: Annotated[dict[UUID, Instant], Field(min_length=1, max_length=10_000)]


class MetadataOut(BaseModel):
    """RFC 8414."""

    issuer: str
    token_endpoint: str
    jwks_uri: str
    grant_types_supported: list[str]
    token_endpoint_auth_methods_supported: list[str]
    response_types_supported: list[str] = []
    scopes_supported: list[str]


class ApiKeyOut(BaseModel):
    id: UUID
    name: str
    prefix: str = Field(description="How the key begins.")
    scopes: list[str]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    created_by: str | None
    replaced_by: UUID | None = Field(description="The key that took its place in a rotation.")
    made_with: UUID | None = Field(description="The key that it was made with, and ends with.")
    last_used_at: datetime | None = Field(description="To the minute or so; null: not that anybody has told.")

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
            created_by=row.created_by,
            replaced_by=row.replaced_by,
            made_with=row.made_with,
            last_used_at=row.last_used_at,
            **more,
        )


class NewApiKeyOut(ApiKeyOut):
    key: str = Field(description="The key itself. It is shown this once.")
