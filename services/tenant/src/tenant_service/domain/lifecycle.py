"""A tenant's life as one transition table.

    requested -> provisioning -> active <-> suspended -> offboarding -> purging -> purged
                 provisioning -> provisioning_failed -> provisioning | cancelled
    requested | provisioning -> cancelled
    offboarding -> active | suspended (taken back inside the grace)
    cancelled -> purging (there is no grace: the tenant has never lived)

`suspended` is derived: a live tenant is suspended exactly while it has reasons to be. Reasons outlive an offboarding,
so that taking it back restores what was. Read-only, moving, the trial and the legal hold are beside the state.

A command that changes nothing (a reason that is already there) returns an equal lifecycle, so that every command may be
repeated; a command that the state does not know raises `IllegalTransition`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType

from tenant_service.domain.suspension import SuspensionReason, blocked_operations
from tenantry import Conflict, TenantStatus


class IllegalTransition(Conflict):
    """The tenant's state does not allow the command. Expected; nothing was changed."""

    type = "illegal-transition"
    title = "The tenant's state does not allow this"


class UnderLegalHold(Conflict):
    """A legal hold keeps the data, whatever was agreed before. Expected; nothing was changed."""

    type = "legal-hold"
    title = "The tenant is under a legal hold"


class GraceOver(Conflict):
    """An offboarding is final once its grace has ended. Expected; nothing was changed."""

    type = "grace-over"
    title = "The grace of the offboarding has ended"


class TenantGone(Conflict):
    """Nothing is written for a tenant whose data is being erased, or that never came to be."""

    type = "tenant-gone"
    title = "The tenant is gone"


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
    BEGIN_MOVE = "begin_move"
    END_MOVE = "end_move"
    SET_TRIAL = "set_trial"
    """A trial until a moment: begin one, or change its end."""
    CONVERT_TRIAL = "convert_trial"
    """The trial is over because the tenant stays."""
    ANNOUNCE_TRIAL_END = "announce_trial_end"
    EXPIRE_TRIAL = "expire_trial"
    SET_LEGAL_HOLD = "set_legal_hold"
    CLEAR_LEGAL_HOLD = "clear_legal_hold"
    OFFBOARD = "offboard"
    """Stop everything; the data stays until the grace has ended."""
    CANCEL_OFFBOARDING = "cancel_offboarding"
    PURGE = "purge"
    """Begin to delete the data: there is no way back from here."""
    PURGED = "purged"
    """Every service has deleted it."""


@dataclass(frozen=True, slots=True)
class Lifecycle:
    """The part of a tenant that commands change."""

    status: TenantStatus = TenantStatus.REQUESTED
    reasons: frozenset[SuspensionReason] = frozenset()
    read_only: bool = False
    moving: bool = False
    trial_ends_at: datetime | None = None
    trial_end_announced: bool = False
    legal_hold: bool = False
    grace_ends_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Order:
    """A command with what it needs to know; what does not belong to the command is None.

    `reason` goes with SUSPEND and REACTIVATE, `until` with SET_TRIAL (its end) and OFFBOARD (the end of the grace),
    `now`, the tenant's present, with EXPIRE_TRIAL and CANCEL_OFFBOARDING.
    """

    command: Command
    reason: SuspensionReason | None = None
    until: datetime | None = None
    now: datetime | None = None


_Status = TenantStatus
_LIVE = (_Status.ACTIVE, _Status.SUSPENDED)
_GONE = frozenset({_Status.CANCELLED, _Status.PURGING, _Status.PURGED})
_BEFORE_LIFE = (_Status.REQUESTED, _Status.PROVISIONING, _Status.PROVISIONING_FAILED)

# The status after a command; between the two live states the reasons decide (`_settled`).
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
        **{
            (status, command): status
            for status in _LIVE
            for command in (
                Command.SUSPEND,
                Command.REACTIVATE,
                Command.SET_READ_ONLY,
                Command.CLEAR_READ_ONLY,
                Command.BEGIN_MOVE,
                Command.END_MOVE,
                Command.ANNOUNCE_TRIAL_END,
                Command.EXPIRE_TRIAL,
            )
        },
        # A trial may be agreed before the tenant's place is ready.
        **{
            (status, command): status
            for status in (*_BEFORE_LIFE, *_LIVE)
            for command in (Command.SET_TRIAL, Command.CONVERT_TRIAL)
        },
        # Data that is being deleted cannot be held any more.
        **{
            (status, command): status
            for status in (*_BEFORE_LIFE, *_LIVE, _Status.OFFBOARDING, _Status.CANCELLED)
            for command in (Command.SET_LEGAL_HOLD, Command.CLEAR_LEGAL_HOLD)
        },
        (_Status.ACTIVE, Command.OFFBOARD): _Status.OFFBOARDING,
        (_Status.SUSPENDED, Command.OFFBOARD): _Status.OFFBOARDING,
        # A bill that is paid during the grace must not suspend the tenant that comes back.
        (_Status.OFFBOARDING, Command.SUSPEND): _Status.OFFBOARDING,
        (_Status.OFFBOARDING, Command.REACTIVATE): _Status.OFFBOARDING,
        (_Status.OFFBOARDING, Command.CANCEL_OFFBOARDING): _Status.ACTIVE,
        (_Status.OFFBOARDING, Command.PURGE): _Status.PURGING,
        (_Status.CANCELLED, Command.PURGE): _Status.PURGING,
        (_Status.PURGING, Command.PURGE): _Status.PURGING,
        (_Status.PURGING, Command.PURGED): _Status.PURGED,
        (_Status.PURGED, Command.PURGED): _Status.PURGED,
    }
)

_WITH_REASON = frozenset({Command.SUSPEND, Command.REACTIVATE})
_WITH_UNTIL = frozenset({Command.SET_TRIAL, Command.OFFBOARD})
WITH_NOW = frozenset({Command.EXPIRE_TRIAL, Command.CANCEL_OFFBOARDING})


def apply(lifecycle: Lifecycle, order: Order) -> Lifecycle:
    """The lifecycle after the order; equal to the old one where there was nothing to do.

    Raises `IllegalTransition`, `UnderLegalHold` (PURGE), `GraceOver` (CANCEL_OFFBOARDING); ValueError for an order that
    lacks what its command needs, or has more.
    """
    command = order.command
    given = (order.reason is not None, order.until is not None, order.now is not None)
    if given != (command in _WITH_REASON, command in _WITH_UNTIL, command in WITH_NOW):
        raise ValueError(f"{command} and {order} do not go together")
    if order.reason is SuspensionReason.TRIAL:
        raise ValueError("an expired trial has commands of its own")
    status = TRANSITIONS.get((lifecycle.status, command))
    if status is None:
        raise IllegalTransition(f"A tenant that is {lifecycle.status} cannot take the command {command}")
    change = _CHANGES.get(command, _unchanged)
    return _settled(replace(change(lifecycle, order), status=status))


def check_not_gone(status: TenantStatus) -> None:
    """Returns where something may be written for the tenant. Raises `TenantGone`."""
    if status in _GONE:
        raise TenantGone(f"The tenant is {status}")


def stops_other_things(before: Lifecycle, after: Lifecycle) -> bool:
    """Whether a live tenant is stopped from doing other things than before (suspended, reactivated, read-only)."""
    if before.status not in _LIVE or after.status not in _LIVE:
        return False
    then = (blocked_operations(before.status, before.reasons), before.read_only)
    return then != (blocked_operations(after.status, after.reasons), after.read_only)


def _settled(lifecycle: Lifecycle) -> Lifecycle:
    if lifecycle.status not in _LIVE:
        return lifecycle
    return replace(lifecycle, status=_Status.SUSPENDED if lifecycle.reasons else _Status.ACTIVE)


def _unchanged(lifecycle: Lifecycle, _order: Order) -> Lifecycle:
    return lifecycle


def _reason_of(order: Order) -> frozenset[SuspensionReason]:
    return frozenset() if order.reason is None else frozenset({order.reason})


def _suspend(lifecycle: Lifecycle, order: Order) -> Lifecycle:
    return replace(lifecycle, reasons=lifecycle.reasons | _reason_of(order))


def _reactivate(lifecycle: Lifecycle, order: Order) -> Lifecycle:
    return replace(lifecycle, reasons=lifecycle.reasons - _reason_of(order))


def _set_trial(lifecycle: Lifecycle, order: Order) -> Lifecycle:
    if order.until == lifecycle.trial_ends_at:
        return lifecycle
    reasons = lifecycle.reasons - {SuspensionReason.TRIAL}
    return replace(lifecycle, reasons=reasons, trial_ends_at=order.until, trial_end_announced=False)


def _convert_trial(lifecycle: Lifecycle, _order: Order) -> Lifecycle:
    reasons = lifecycle.reasons - {SuspensionReason.TRIAL}
    return replace(lifecycle, reasons=reasons, trial_ends_at=None, trial_end_announced=False)


def _announce_trial_end(lifecycle: Lifecycle, _order: Order) -> Lifecycle:
    return replace(lifecycle, trial_end_announced=lifecycle.trial_ends_at is not None)


def _expire_trial(lifecycle: Lifecycle, order: Order) -> Lifecycle:
    ends_at, now = lifecycle.trial_ends_at, order.now
    if ends_at is None or now is None or now < ends_at:
        return lifecycle
    return replace(lifecycle, reasons=lifecycle.reasons | {SuspensionReason.TRIAL}, trial_end_announced=True)


def _offboard(lifecycle: Lifecycle, order: Order) -> Lifecycle:
    if lifecycle.moving:
        raise IllegalTransition("A tenant that is being moved cannot be offboarded")
    return replace(lifecycle, grace_ends_at=order.until)


def _cancel_offboarding(lifecycle: Lifecycle, order: Order) -> Lifecycle:
    ends_at, now = lifecycle.grace_ends_at, order.now
    if ends_at is not None and now is not None and now >= ends_at:
        raise GraceOver(f"The grace ended at {ends_at.isoformat()}")
    return replace(lifecycle, grace_ends_at=None)


def _purge(lifecycle: Lifecycle, _order: Order) -> Lifecycle:
    if lifecycle.legal_hold:
        raise UnderLegalHold("A tenant under a legal hold is not purged")
    return lifecycle


# What a command changes besides the status.
_CHANGES: Mapping[Command, Callable[[Lifecycle, Order], Lifecycle]] = MappingProxyType(
    {
        Command.SUSPEND: _suspend,
        Command.REACTIVATE: _reactivate,
        Command.SET_READ_ONLY: lambda lifecycle, _order: replace(lifecycle, read_only=True),
        Command.CLEAR_READ_ONLY: lambda lifecycle, _order: replace(lifecycle, read_only=False),
        Command.BEGIN_MOVE: lambda lifecycle, _order: replace(lifecycle, moving=True),
        Command.END_MOVE: lambda lifecycle, _order: replace(lifecycle, moving=False),
        Command.SET_TRIAL: _set_trial,
        Command.CONVERT_TRIAL: _convert_trial,
        Command.ANNOUNCE_TRIAL_END: _announce_trial_end,
        Command.EXPIRE_TRIAL: _expire_trial,
        Command.SET_LEGAL_HOLD: lambda lifecycle, _order: replace(lifecycle, legal_hold=True),
        Command.CLEAR_LEGAL_HOLD: lambda lifecycle, _order: replace(lifecycle, legal_hold=False),
        Command.OFFBOARD: _offboard,
        Command.CANCEL_OFFBOARDING: _cancel_offboarding,
        Command.PURGE: _purge,
    }
)
