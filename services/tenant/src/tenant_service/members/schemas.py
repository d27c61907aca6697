"""What comes in over HTTP and what goes out."""

from datetime import datetime
from typing import Annotated, Self
from uuid import UUID

from pydantic import BaseModel, Field, model_validator

from tenant_service.domain.roles import Role
from tenant_service.members.models import MemberRow
from tenant_service.models import TenantRow
from tenant_service.tenants.schemas import EmailAddress, Input, Name
from tenantry import TenantStatus

Roles = Annotated[list[Role], Field(min_length=1, max_length=len(Role))]


class MemberCreate(Input):
    email: EmailAddress
    roles: Roles
    name: Name | None = None


class MemberUpdate(Input):
    """Only the fields that are sent change."""

    roles: Roles | None = None
    name: Name | None = None

    @model_validator(mode="after")
    def _something_is_sent(self) -> Self:
        if not self.model_fields_set:
            raise ValueError("send roles, a name, or both")
        if "roles" in self.model_fields_set and self.roles is None:
            raise ValueError("roles cannot be null: remove the member instead")
        return self


class MemberOut(BaseModel):
    id: UUID
    email: str
    name: str | None
    roles: list[str]
    version: int
    created_at: datetime

    @classmethod
    def of(cls, row: MemberRow, email: str) -> Self:
        return cls(
            id=row.id, email=email, name=row.name, roles=row.roles, version=row.version, created_at=row.created_at
        )


class MembershipOut(BaseModel):
    """A tenant that the caller is a member of."""

    tenant_id: UUID
    external_id: str | None
    slug: str
    name: str
    status: TenantStatus
    member_id: UUID
    roles: list[str]

    @classmethod
    def of(cls, member: MemberRow, tenant: TenantRow) -> Self:
        return cls(
            tenant_id=tenant.id,
            external_id=tenant.external_id,
            slug=tenant.slug,
            name=tenant.name,
            status=tenant.status,
            member_id=member.id,
            roles=member.roles,
        )


class MeOut(BaseModel):
    """The caller. `tenant_id` is the one tenant that the credential acts for."""

    subject: str
    kind: str
    tenant_id: UUID | None
    scopes: list[str]
    actor: str | None = Field(description="Who acts in the place of the subject: the operator of support access.")
    memberships: list[MembershipOut]
