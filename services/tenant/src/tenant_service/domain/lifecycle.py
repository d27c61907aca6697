"""A tenant's life as one transition table.

    requested -> provisioning -> active <-> suspended
                 provisioning -> provisioning_failed -> provisioning | cancelled
    requested | provisioning -> cancelled

`suspended` is derived: a live tenant is suspended exactly while it has reasons to be. Read-only is a flag beside the
state. A command that changes nothing (a reason that is already there) returns an equal lifecycle, so that every
command may be repeated; a command that the state does not know raises `IllegalTransition`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from types import MappingProxyType

from tenant_service.domain.suspension import SuspensionReason
from tenantry import Conflict, TenantStatus


class IllegalTransition(Conflict):
    """The tenant's state does not allow the command. Expected; nothing was changed."""

    type = "illegal-transition"
    title = "The tenant's state does not allow this"


class Command(StrEnum):
    """What can happen to a tenant."""

    PROVISION = "provision"
    ACTIVATE = "activate"
    FAIL_PROVISIONING = "fail_provisioning"
    CANCEL_PROVISIONING = "cancel_provisioning"
    SUSPEND = "suspend"
    REACTIVATE = "reactivate"
    SET_READ_ONLY = "set_read_only"
    CLEAR_READ_ONLY = "clear_read_only"


@dataclass(frozen=True, slots=True)
class Lifecycle:
    """The part of a tenant that commands change."""

    status: TenantStatus = TenantStatus.REQUESTED
    reasons: frozenset[SuspensionReason] = frozenset()
    read_only: bool = False


_Status = TenantStatus

# The status after a command; for SUSPEND and REACTIVATE the reasons that remain decide between the two live states.
TRANSITIONS: Mapping[tuple[TenantStatus, Command], TenantStatus] = MappingProxyType(
    {
        (_Status.REQUESTED, Command.PROVISION): _Status.PROVISIONING,
        (_Status.REQUESTED, Command.FAIL_PROVISIONING): _Status.PROVISIONING_FAILED,
        (_Status.REQUESTED, Command.CANCEL_PROVISIONING): _Status.CANCELLED,
        (_Status.PROVISIONING, Command.PROVISION): _Status.PROVISIONING,
        (_Status.PROVISIONING, Command.ACTIVATE): _Status.ACTIVE,
        (_Status.PROVISIONING, Command.FAIL_PROVISIONING): _Status.PROVISIONING_FAILED,
        (_Status.PROVISIONING, Command.CANCEL_PROVISIONING): _Status.CANCELLED,
        (_Status.PROVISIONING_FAILED, Command.PROVISION): _Status.PROVISIONING,
        (_Status.PROVISIONING_FAILED, Command.CANCEL_PROVISIONING): _Status.CANCELLED,
        (_Status.ACTIVE, Command.SUSPEND): _Status.SUSPENDED,
        (_Status.ACTIVE, Command.REACTIVATE): _Status.ACTIVE,
        (_Status.ACTIVE, Command.SET_READ_ONLY): _Status.ACTIVE,
        (_Status.ACTIVE, Command.CLEAR_READ_ONLY): _Status.ACTIVE,
        (_Status.SUSPENDED, Command.SUSPEND): _Status.SUSPENDED,
        (_Status.SUSPENDED, Command.REACTIVATE): _Status.SUSPENDED,
        (_Status.SUSPENDED, Command.SET_READ_ONLY): _Status.SUSPENDED,
        (_Status.SUSPENDED, Command.CLEAR_READ_ONLY): _Status.SUSPENDED,
    }
)


def apply(lifecycle: Lifecycle, command: Command, reason: SuspensionReason | None = None) -> Lifecycle:
    """The lifecycle after `command`; equal to the old one where there was nothing to do.

    `reason` belongs to SUSPEND and REACTIVATE and to no other. Raises `IllegalTransition`.
    """
    if (reason is not None) != (command in {Command.SUSPEND, Command.REACTIVATE}):
        raise ValueError(f"{command} and a suspension reason do not go together")
    status = TRANSITIONS.get((lifecycle.status, command))
    if status is None:
        raise IllegalTransition(f"A tenant that is {lifecycle.status} cannot take the command {command}")
    if reason is not None:
        change = lifecycle.reasons.union if command is Command.SUSPEND else lifecycle.reasons.difference
        reasons = change({reason})
        return replace(lifecycle, reasons=reasons, status=_Status.SUSPENDED if reasons else _Status.ACTIVE)
    if command in {Command.SET_READ_ONLY, Command.CLEAR_READ_ONLY}:
        return replace(lifecycle, read_only=command is Command.SET_READ_ONLY)
    return replace(lifecycle, status=status)
