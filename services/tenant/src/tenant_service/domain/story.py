"""What a tenant's story (`tenant.events.v1`) says about a change of its life."""

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from tenant_service.domain.lifecycle import Command, Lifecycle, Order


class Told(NamedTuple):
    """A line of the story: `event` is e.g. "suspended", and what it says besides who the tenant is."""

    event: str
    data: Mapping[str, Any]


_EVENTS: Mapping[Command, str] = MappingProxyType(
    {
        Command.PROVISION: "provisioning_started",
        Command.ACTIVATE: "activated",
        Command.FAIL_PROVISIONING: "provisioning_failed",
        Command.CANCEL_PROVISIONING: "cancelled",
        Command.SET_READ_ONLY: "read_only_entered",
        Command.CLEAR_READ_ONLY: "read_only_left",
        Command.BEGIN_MOVE: "move_started",
        Command.END_MOVE: "move_ended",
        Command.CONVERT_TRIAL: "trial_converted",
        Command.ANNOUNCE_TRIAL_END: "trial_ending",
        Command.EXPIRE_TRIAL: "trial_expired",
        Command.SET_LEGAL_HOLD: "legal_hold_set",
        Command.CLEAR_LEGAL_HOLD: "legal_hold_released",
        Command.OFFBOARD: "offboarding_started",
        Command.CANCEL_OFFBOARDING: "offboarding_cancelled",
        Command.PURGE: "purge_started",
        Command.PURGED: "purged",
    }
)
_ABOUT_TRIALS = frozenset({Command.SET_TRIAL, Command.ANNOUNCE_TRIAL_END, Command.EXPIRE_TRIAL, Command.CONVERT_TRIAL})


def story_of(order: Order, before: Lifecycle, after: Lifecycle, note: str = "") -> Iterator[Told]:
    """The lines about an order that has made `after` of `before`, in order; none where nothing changed.

    A reason that comes or goes is told as `suspended` or `reactivated`, whichever command brought it about.
    """
    if before == after:
        return
    event = _event(order.command, before)
    if event is not None:
        yield Told(event, _about(order.command, before, after, note))
    reasons = {"suspension_reasons": sorted(after.reasons)}
    for reason in sorted(after.reasons - before.reasons):
        yield Told("suspended", {"reason": reason, **reasons})
    for reason in sorted(before.reasons - after.reasons):
        yield Told("reactivated", {"reason": reason, **reasons})


def _event(command: Command, before: Lifecycle) -> str | None:
    if command is Command.SET_TRIAL:
        return "trial_started" if before.trial_ends_at is None else "trial_changed"
    return _EVENTS.get(command)


def _about(command: Command, before: Lifecycle, after: Lifecycle, note: str) -> dict[str, Any]:
    if command in _ABOUT_TRIALS:
        return {"trial_ends_at": after.trial_ends_at or before.trial_ends_at}
    if command is Command.OFFBOARD:
        return {"grace_ends_at": after.grace_ends_at}
    return {"reason": note} if command is Command.FAIL_PROVISIONING else {}
