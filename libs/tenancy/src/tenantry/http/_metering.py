"""Metering of requests: one event for each, recorded before its response ends."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from tenantry._errors import Unavailable
from tenantry._tenant import Tenant

DEFAULT_EVENT_TYPE: Final = "app.request"

Record = Callable[[Tenant, str, Mapping[str, Any]], object]
"""Writes one event of a tenant where no crash of this process loses it. Does not wait; raises where it cannot."""


class RequestMetering:
    """Records `bytes_in`, `bytes_out`, `path` (the route's template), `method` and `status` of every request.

    Only requests of a tenant count, and only those that were admitted: what is refused by the tenant's status or for
    want of a credential is not used.
    """

    def __init__(
        self,
        record: Record,
        *,
        event_type: str = DEFAULT_EVENT_TYPE,
        is_full: Callable[[], bool] = lambda: False,
    ) -> None:
        """`is_full` tells beforehand that `record` would refuse, so that no work is done that cannot be metered."""
        self._record = record
        self._event_type = event_type
        self._is_full = is_full

    def check(self) -> None:
        """Raises `Unavailable` where nothing can be recorded now."""
        if self._is_full():
            raise Unavailable("Usage cannot be recorded at the moment.", retry_after=5)

    def record(self, tenant: Tenant, *, path: str, method: str, status: int, bytes_in: int, bytes_out: int) -> None:
        """Records one request. Raises what the recorder raises."""
        self._record(
            tenant,
            self._event_type,
            {"bytes_in": bytes_in, "bytes_out": bytes_out, "path": path, "method": method, "status": status},
        )
