"""The limits that a tier sets, in `Tier.limits`, and that the namespace `limits` sets otherwise for some tenants.

    {"requests": {"default": {"rate": 100, "burst": 200}, "write": {"rate": 20}},
     "concurrency": 50, "connections": 4, "jobs": 2, "weight": 2}

What is absent is unlimited. They hold for each service on its own.
"""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Final

import msgspec

from tenantry._errors import FieldError, InvalidRequest
from tenantry._tenant import Operation

DEFAULT_CLASS: Final = "default"
"""The class whose one bucket all requests share that have no bucket of their own."""

REQUEST_CLASSES: Final = frozenset(
    {
        DEFAULT_CLASS,
        Operation.READ.value,
        Operation.WRITE.value,
        Operation.INGEST.value,
        Operation.SERVICE_INGEST.value,
        Operation.LOGIN.value,
        Operation.PORTAL.value,
    }
)
# Usage that a service sends is evidence, and is limited only where somebody says so by name.
OUTSIDE_DEFAULT: Final = frozenset({Operation.SERVICE_INGEST.value})


class InvalidLimits(InvalidRequest):
    """Limits are not what the document above allows; `errors` says where."""


class Rate(msgspec.Struct, frozen=True):
    """Units a second, and how many may come at once. A request is one unit unless its route says otherwise."""

    rate: Annotated[float, msgspec.Meta(ge=0.001, le=1_000_000)]
    burst: Annotated[int, msgspec.Meta(ge=1, le=10_000_000)] | None = None
    """None is one second's worth, and at least one."""


class TenantLimits(msgspec.Struct, frozen=True):
    """What one tenant may take of a service. The default is no limit, and the weight of everybody else."""

    requests: dict[str, Rate] = {}
    """Rates by class: an `Operation` of requests, or `default` for those that are not named."""
    concurrency: Annotated[int, msgspec.Meta(ge=1, le=100_000)] | None = None
    """Requests in progress in one process, open streams included."""
    connections: Annotated[int, msgspec.Meta(ge=1, le=10_000)] | None = None
    """Database sessions at one time in one process."""
    jobs: Annotated[int, msgspec.Meta(ge=1, le=1_000)] | None = None
    """Jobs at one time in one worker."""
    weight: Annotated[float, msgspec.Meta(ge=0.01, le=100)] = 1.0
    """The share of a full process, relative to those of other tenants."""


UNLIMITED: Final = TenantLimits()

_FIELDS: Final = frozenset(TenantLimits.__struct_fields__)
_RATE_FIELDS: Final = frozenset(Rate.__struct_fields__)


def parse_limits(document: Mapping[str, Any]) -> TenantLimits:
    """The limits in a document that somebody wrote. Raises `InvalidLimits` for anything that has no meaning."""
    errors: list[FieldError] = [_unknown([key]) for key in _others(document, _FIELDS)]
    requests = document.get("requests")
    if isinstance(requests, Mapping):
        errors += [_unknown(["requests", name]) for name in _others(requests, REQUEST_CLASSES)]
        for name, rate in requests.items():
            if isinstance(rate, Mapping):
                errors += [_unknown(["requests", name, key]) for key in _others(rate, _RATE_FIELDS)]
    if errors:
        raise InvalidLimits("The limits hold names that have no meaning.", errors=errors)
    try:
        return read_limits(document)
    except msgspec.ValidationError as error:
        message, _, place = str(error).partition(" - at `$")
        loc: list[str | int] = list(filter(None, place.strip("`").replace("[...]", ".*").split(".")))
        raise InvalidLimits("The limits are not valid.", errors=[{"loc": loc, "msg": message}]) from None


def read_limits(document: Mapping[str, Any]) -> TenantLimits:
    """The limits in a document of the control plane, which may be newer than this code: unknown names are passed over.

    Raises `msgspec.ValidationError` where a known name has a value that cannot be.
    """
    return msgspec.convert(document, TenantLimits)


def _others(found: Iterable[str], known: frozenset[str]) -> list[str]:
    return sorted(str(name) for name in found if name not in known)


def _unknown(loc: list[str | int]) -> FieldError:
    return {"loc": loc, "msg": "unknown name"}
