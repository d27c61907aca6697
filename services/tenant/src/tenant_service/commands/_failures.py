"""What the service refuses, in a line, and what to do next, in another."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from tenantry.cli import CommandFailed

if TYPE_CHECKING:
    import httpx

NEXT_BY_TYPE: Final[Mapping[str, str]] = MappingProxyType(
    {
        "already-invited": "`tenantry invitations list` shows it; `invitations resend` makes a new code",
        "built-in-namespace": "`tenantry flags set` defines features, `tenantry tiers set` the limits of a tier",
        "clock-advancing": "`tenantry clocks show` says when it has arrived; then repeat the command",
        "config-conflict": "put their documents right first, or repeat the command with --force",
        "domain-unproven": "set the TXT record that `tenantry domains list --json` shows; name servers take a while",
        "export-not-configured": "offboard with --no-export, or set TENANTRY_EXPORT_URL of the services",
        "grace-running": "wait until then, or take it back with `tenantry tenants cancel-offboarding`",
        "idempotency-conflict": "leave --idempotency-key out, or choose another key",
        "identity-external": "invite them at the identity provider of this installation",
        "illegal-transition": "`tenantry tenants show` says how the tenant stands, `tenants runs` what is under way",
        "invalid-client": "check TENANTRY_CLIENT_ID and TENANTRY_CLIENT_SECRET, or the operator file of `make up`",
        "legal-hold": "lift it with `tenantry tenants legal-hold REF --off`",
        "limits-of-tier": "`tenantry tiers set` says what the tenants of a tier may use",
        "no-store": "`tenantry stores list` shows what has room",
        "not-offboarding": "`tenantry tenants offboard` comes first",
        "rate-limited": "wait a little and repeat the command",
        "run-being-undone": "`tenantry tenants runs` shows when that is done",
        "run-not-stuck": "`tenantry tenants runs` shows what each run is waiting for",
        "run-over": "`tenantry tenants runs` shows which runs are under way",
        "secret-already-shown": "revoke the key that was made (`tenantry keys list`, `keys revoke`) and create another",
        "slug-taken": "choose another; `tenantry tenants list -q SLUG --all` shows whose it is",
        "stale-version": "somebody changed it meanwhile: look at it again and repeat the command",
        "tenant-gone": "it is ended for good: make another tenant with `tenantry tenants create`",
        "unknown-tier": "`tenantry tiers list` shows those that there are",
        "unusable-image": "give a whole PNG, JPEG or WebP file of up to 512 KiB and 4096 pixels",
    }
)
NEXT_BY_STATUS: Final[Mapping[int, str]] = MappingProxyType(
    {
        HTTPStatus.UNAUTHORIZED: "set TENANTRY_CLIENT_ID and TENANTRY_CLIENT_SECRET, or TENANTRY_OPERATOR_FILE",
        HTTPStatus.FORBIDDEN: "this credential may not do that; use an operator's (scope `platform`)",
        HTTPStatus.UNPROCESSABLE_ENTITY: "put right what is named, `--help` says what is expected",
        HTTPStatus.SERVICE_UNAVAILABLE: "the service is up and something it needs is away: repeat the command",
    }
)

# By the first word of an address: where the names are that it knows.
_LISTS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "config-schemas": "config schemas list",
        "flags": "flags list",
        "revocations": "revocations list",
        "stores": "stores list",
        "tiers": "tiers list",
    }
)


class Refused(CommandFailed):
    """The service said no; `type`, `status` and `faults` are of its problem."""

    def __init__(
        self,
        reason: str,
        next_step: str | None = None,
        *,
        type: str = "",  # noqa: A002 - the problem's word
        status: int = 0,
        faults: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        super().__init__(reason, next_step)
        self.type = type
        self.status = status
        self.faults = faults

    @classmethod
    def by(cls, response: "httpx.Response") -> "Refused":
        """What the problem in `response` says; a body that is no problem is left out."""
        try:
            problem = response.json()
        except ValueError:
            problem = {}
        if not isinstance(problem, dict):
            problem = {}
        status, kind = response.status_code, str(problem.get("type", ""))
        reason = str(problem.get("title") or f"the service answered {status} {response.reason_phrase}")
        if (detail := problem.get("detail")) and detail != reason:
            reason = f"{reason}: {detail}"
        faults = [each for each in problem.get("errors", ()) if isinstance(each, dict)]
        if faults:
            reason = f"{reason} ({'; '.join(map(_fault, faults))})"
        return cls(reason, _next_step(response, kind), type=kind, status=status, faults=faults)


def _next_step(response: "httpx.Response", kind: str) -> str | None:
    path = response.request.url.path
    if kind == "not-offboarding" and path.endswith("/cancel-offboarding"):
        return "`tenantry tenants show` says how the tenant stands"
    if response.status_code == HTTPStatus.NOT_FOUND and kind not in NEXT_BY_TYPE:
        return _where_names_are(path.removeprefix("/v1/").split("/"))
    return NEXT_BY_TYPE.get(kind, NEXT_BY_STATUS.get(response.status_code))


def _where_names_are(parts: Sequence[str]) -> str:
    """What to look at for an address of which something is not there."""
    noun = "config" if "config" in parts else parts[0]
    if noun in {"config", "tiers"} and not {"versions", "diff", "rollback"}.isdisjoint(parts):
        return f"`tenantry {noun} versions` lists the versions that there are"
    if noun == "config":
        tiers = "`tenantry tiers list` shows the tiers, " if list(parts[:2]) == ["config", "tier"] else ""
        return (
            f"{tiers}`tenantry config schemas list` the namespaces, `config get REF NAMESPACE --effective` what holds"
        )
    return f"`tenantry {_LISTS.get(noun, 'tenants list')}` shows those that there are; names are taken to the letter"


def _fault(fault: dict[str, Any]) -> str:
    loc = [str(part) for part in fault.get("loc", ())]
    # "body" says where in the request; whoever typed a command does not think of that.
    name = ".".join(loc[1:] if loc[:1] in (["body"], ["query"], ["path"]) else loc)
    return f"{name}: {fault.get('msg', '')}" if name else str(fault.get("msg", ""))
