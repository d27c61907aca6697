"""The errors of the library, each with the HTTP status and the problem type it is rendered as (RFC 9457).

    TenantryError
    ├── MalformedRequest       400 malformed-request
    │   └── NoTenant           400 tenant-missing
    ├── Unauthenticated        401 unauthenticated
    ├── QuotaExceeded          402 quota-exceeded
    ├── PermissionDenied       403 forbidden
    │   ├── TenantMismatch     403 tenant-mismatch
    │   ├── ResidencyViolation 403 residency-violation
    │   ├── TenantSuspended    403 tenant-suspended
    │   └── TenantNotActive    403 tenant-not-active
    ├── NotFound               404 not-found
    │   └── TenantNotFound     404 not-found
    ├── Conflict               409 conflict
    │   ├── TenantReadOnly     409 tenant-read-only
    │   ├── IdempotencyConflict 409 idempotency-conflict
    │   └── SecretAlreadyShown 409 secret-already-shown
    ├── StaleVersion           412 stale-version
    ├── PayloadTooLarge        413 payload-too-large
    ├── UnsupportedMedia       415 unsupported-media-type
    ├── InvalidRequest         422 invalid-request
    ├── RateLimited            429 rate-limited
    ├── Unavailable            503 unavailable
    │   └── TenantMoving       503 tenant-moving
    └── TenantAlreadyBound     500 tenant-already-bound   a defect of the caller, never of the request

`StartupRefused` stands apart: it ends a process, not a request.

A service's own errors derive from these and stand beside the rule that raises them.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, TypedDict


class FieldError(TypedDict):
    """One fault of a document: where it is (a path of keys and indices) and what is wrong with it."""

    loc: list[str | int]
    msg: str


class TenantryError(Exception):
    """An expected failure. `detail` is shown to the caller: it holds no row values and no internals."""

    status: ClassVar[int] = 500
    type: ClassVar[str] = "internal-error"
    title: ClassVar[str] = "Internal error"

    def __init__(
        self,
        detail: str = "",
        *,
        headers: Mapping[str, str] | None = None,
        errors: Sequence[FieldError] = (),
        members: Mapping[str, Any] | None = None,
    ) -> None:
        """`members` are what the problem says beside its own (RFC 9457, 3.2)."""
        super().__init__(detail or self.title)
        self.detail = detail or self.title
        self.headers = dict(headers or {})
        self.errors = list(errors)
        self.members = dict(members or {})


class StartupRefused(Exception):
    """The process must not run as it is configured. The message says what to change."""


class TenantAlreadyBound(TenantryError):
    type = "tenant-already-bound"
    title = "Another tenant is bound already"


class MalformedRequest(TenantryError):
    status = 400
    type = "malformed-request"
    title = "The request cannot be read"


class NoTenant(MalformedRequest):
    type = "tenant-missing"
    title = "No tenant is set"


class Unauthenticated(TenantryError):
    status = 401
    type = "unauthenticated"
    title = "A valid credential is needed"

    def __init__(self, detail: str = "", *, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail, headers={"WWW-Authenticate": "Bearer", **(headers or {})})


class QuotaExceeded(TenantryError):
    status = 402
    type = "quota-exceeded"
    title = "The quota is used up"


class PermissionDenied(TenantryError):
    status = 403
    type = "forbidden"
    title = "The credential does not allow this"


class TenantMismatch(PermissionDenied):
    type = "tenant-mismatch"
    title = "The request names another tenant than its credential"


class ResidencyViolation(PermissionDenied):
    type = "residency-violation"
    title = "The tenant's data stays in another region"


class TenantSuspended(PermissionDenied):
    type = "tenant-suspended"
    title = "The tenant is suspended"


class TenantNotActive(PermissionDenied):
    type = "tenant-not-active"
    title = "The tenant is not active"


class NotFound(TenantryError):
    status = 404
    type = "not-found"
    title = "Not found"


class TenantNotFound(NotFound):
    """The same body as any other 404: nobody learns whether a tenant exists."""


class Conflict(TenantryError):
    status = 409
    type = "conflict"
    title = "The request conflicts with the current state"


class TenantReadOnly(Conflict):
    type = "tenant-read-only"
    title = "The tenant is read-only"


class IdempotencyConflict(Conflict):
    type = "idempotency-conflict"
    title = "The Idempotency-Key was used with another request"


class SecretAlreadyShown(Conflict):
    type = "secret-already-shown"
    title = "The answer held a secret that is shown once"


class StaleVersion(TenantryError):
    status = 412
    type = "stale-version"
    title = "The document has changed since it was read"


class PayloadTooLarge(TenantryError):
    status = 413
    type = "payload-too-large"
    title = "The body is too large"


class UnsupportedMedia(TenantryError):
    status = 415
    type = "unsupported-media-type"
    title = "The content type is not supported"


class InvalidRequest(TenantryError):
    status = 422
    type = "invalid-request"
    title = "The request is not valid"


class _Retryable(TenantryError):
    def __init__(self, detail: str = "", *, retry_after: int = 1, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail, headers={"Retry-After": str(retry_after), **(headers or {})})
        self.retry_after = retry_after
        """Whole seconds after which a repetition makes sense."""


class RateLimited(_Retryable):
    status = 429
    type = "rate-limited"
    title = "Too many requests"


class Unavailable(_Retryable):
    status = 503
    type = "unavailable"
    title = "The service cannot do this now"


class TenantMoving(Unavailable):
    type = "tenant-moving"
    title = "The tenant is being moved"
