"""What the roles of a member allow, and who may give and take them."""

from collections.abc import Collection, Mapping
from enum import StrEnum
from types import MappingProxyType

from tenantry import Conflict, PermissionDenied
from tenantry.identity import Scope


class Role(StrEnum):
    OWNER = "owner"
    ADMIN = "admin"
    MEMBER = "member"
    VIEWER = "viewer"
    BILLING = "billing"


# An owner's credential allows no more than an admin's; what sets owners apart is that only they make and unmake owners.
SCOPES_OF: Mapping[Role, frozenset[Scope]] = MappingProxyType(
    {
        Role.OWNER: frozenset({Scope.TENANT_ADMIN, Scope.TENANT_BILLING}),
        Role.ADMIN: frozenset({Scope.TENANT_ADMIN, Scope.TENANT_BILLING}),
        Role.MEMBER: frozenset({Scope.TENANT_WRITE}),
        Role.VIEWER: frozenset({Scope.TENANT_READ}),
        Role.BILLING: frozenset({Scope.TENANT_BILLING}),
    }
)

GRANTED_BY_OWNERS = frozenset(Role)
GRANTED_BY_ADMINS = GRANTED_BY_OWNERS - {Role.OWNER}


class OwnerRequired(PermissionDenied):
    """Admins manage everybody but owners."""

    type = "owner-required"
    title = "Only an owner may do this"


class LastOwner(Conflict):
    """A tenant that has had an owner keeps one."""

    type = "last-owner"
    title = "The tenant would be left without an owner"


def scopes_of(roles: Collection[Role]) -> frozenset[str]:
    """What all of the roles allow together."""
    return frozenset(scope.value for role in roles for scope in SCOPES_OF[role])


def grantable_by(roles: Collection[Role]) -> frozenset[Role]:
    """The roles that a member with `roles` may give and take."""
    if Role.OWNER in roles:
        return GRANTED_BY_OWNERS
    return GRANTED_BY_ADMINS if Role.ADMIN in roles else frozenset()


def check_change(before: Collection[Role], after: Collection[Role], *, grantable: Collection[Role]) -> None:
    """Raises `OwnerRequired` where the change gives or takes a role that is not the caller's to give.

    Nor may such a caller touch somebody who holds one: whoever could take the other roles of an owner could lock them
    out of everything but that.
    """
    beyond = (set(before) | set(after)) - set(grantable)
    if beyond and set(before) != set(after):
        raise OwnerRequired(f"This caller may not change members who are, or are to be, {', '.join(sorted(beyond))}")


def check_owners(*, was_owner: bool, stays_owner: bool, owners: int) -> None:
    """Raises `LastOwner` where the only one of `owners` would stop being one."""
    if was_owner and not stays_owner and owners <= 1:
        raise LastOwner("Make somebody else an owner first")
