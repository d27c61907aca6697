"""Asking the usage service what raw events bear out of a quantity."""

from collections.abc import Callable, Mapping
from datetime import datetime
from decimal import Decimal
from http import HTTPStatus
from typing import Any, Final, Protocol
from uuid import UUID

import httpx
import msgspec

from billing_service.domain.verification import Counted
from tenantry import StartupRefused, Unavailable

_PATH: Final = "/v1/evidence"
# A month of a large tenant is read event by event, from the archive where it is old.
_TIMEOUT_SECONDS: Final = 300.0


class _Tally(msgspec.Struct, frozen=True):
    events: Decimal
    sum: Decimal | None

    @property
    def quantity(self) -> Decimal:
        return self.events if self.sum is None else self.sum


class Evidence(msgspec.Struct, frozen=True):
    """`corrections` took events back that the cut holds; on `expired_days` raw events may be gone."""

    at_cut: _Tally
    now: _Tally
    corrections: list[dict[str, Any]]
    expired_days: list[str]

    @property
    def counted(self) -> Counted:
        return Counted(self.at_cut.quantity, self.now.quantity)


_decode: Final = msgspec.json.Decoder(Evidence, strict=False).decode


class EvidenceSource(Protocol):
    async def find(
        self, tenant_id: UUID, meter: str, span: tuple[datetime, datetime], cut: Mapping[str, int]
    ) -> Evidence | None:
        """Of the tenant's events in [first, last); None where usage knows neither the tenant nor the meter any more."""
        ...


class UsageEvidence:
    """Evidence over HTTP."""

    def __init__(self, client: Callable[[], httpx.AsyncClient]) -> None:
        """`client` is `tenancy.client("usage")`, asked for when it is needed: reading invoices needs none."""
        self._client = client

    async def find(
        self, tenant_id: UUID, meter: str, span: tuple[datetime, datetime], cut: Mapping[str, int]
    ) -> Evidence | None:
        """Raises Unavailable where the usage service gives no answer."""
        body = {
            "tenant_id": str(tenant_id),
            "meter": meter,
            "from": span[0].isoformat(),
            "to": span[1].isoformat(),
            "cut": dict(cut),
        }
        try:
            async with self._client() as usage:
                response = await usage.post(_PATH, json=body, timeout=_TIMEOUT_SECONDS)
        except (httpx.TransportError, StartupRefused) as error:
            raise Unavailable("The usage service, which has the evidence, cannot be asked.") from error
        if response.status_code == HTTPStatus.NOT_FOUND:
            return None
        if not response.is_success:
            raise Unavailable(f"The usage service, which has the evidence, answers {response.status_code}.")
        return _decode(response.content)
