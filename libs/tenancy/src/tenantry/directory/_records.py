"""A tenant as a company writes it down, and the document that the library makes of it."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID, uuid5

import msgspec

from tenantry._tenant import Tenant, TenantId, TenantStatus

TENANT_KEYS: Final = UUID("6f3d0c1e-8f0e-5c55-9f53-0f6a3b1f7a10")
"""The namespace in which a key that is not a UUID has its id (UUIDv5): the same in every process, now and later."""

DEFAULT_TIER: Final = "standard"
_UNKNOWN_SINCE: Final = datetime(1970, 1, 1, tzinfo=UTC)


class TenantFields(msgspec.Struct, frozen=True, kw_only=True):
    """What a company calls things: the name of each field in its records, and what its states stand for.

    Only the id must be there. A key that is no UUID becomes the external id, unless a field of its own says that.
    """

    id: str = "id"
    external_id: str = "external_id"
    slug: str = "slug"
    name: str = "name"
    status: str = "status"
    tier: str = "tier"
    region: str = "region"
    domains: str = "domains"
    created_at: str = "created_at"
    updated_at: str = "updated_at"
    statuses: dict[str, TenantStatus] = msgspec.field(default_factory=dict)

    def tenant(self, record: Mapping[str, Any]) -> Tenant:
        """The tenant of a record, as version 1. Raises `ValueError` or `TypeError`, which name the field.

        A state that nobody has explained is a suspension: nothing fails open.
        """
        key = _text(record, self.id)
        if key is None:
            raise ValueError(f"{self.id} is empty")
        tenant_id, key_is_id = id_of(key)
        external_id = _text(record, self.external_id) or (None if key_is_id else key)
        state = _text(record, self.status)
        status, reasons = self._status(state)
        slug = _text(record, self.slug) or external_id or key
        return Tenant(
            id=tenant_id,
            external_id=external_id,
            slug=slug,
            name=_text(record, self.name) or slug,
            status=status,
            suspension_reasons=reasons,
            tier=_text(record, self.tier) or DEFAULT_TIER,
            region=_text(record, self.region),
            domains=_domains(record.get(self.domains)),
            version=1,
            created_at=_instant(record.get(self.created_at)),
        )

    def _status(self, state: str | None) -> tuple[TenantStatus, tuple[str, ...]]:
        if state is None:
            return TenantStatus.ACTIVE, ()
        if state in self.statuses:
            return self.statuses[state], ()
        try:
            return TenantStatus(state), ()
        except ValueError:
            return TenantStatus.SUSPENDED, (f"unknown state {state[:50]}",)


def id_of(key: str) -> tuple[TenantId, bool]:
    """The tenant id that belongs to a company's key, and whether the key itself is that id."""
    try:
        given = UUID(key)
    except ValueError:
        return TenantId(uuid5(TENANT_KEYS, key)), False
    # UUID() also takes braces, missing hyphens and the digits of other scripts: those are keys like any other.
    return (TenantId(given), True) if str(given) == key.lower() else (TenantId(uuid5(TENANT_KEYS, key)), False)


def _text(record: Mapping[str, Any], field: str) -> str | None:
    value = record.get(field)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, str | int | UUID):
        raise TypeError(f"{field} is of type {type(value).__name__}")
    return str(value).strip() or None


def _domains(value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    if isinstance(value, str):
        value = value.split(",")
    if not isinstance(value, Sequence) or not all(isinstance(name, str) for name in value):
        raise ValueError("domains is not a list of names")
    return tuple(name.strip().lower().removesuffix(".") for name in value if name.strip())


def _instant(value: object) -> datetime:
    if value is None:
        return _UNKNOWN_SINCE
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    if not isinstance(value, datetime):
        raise TypeError(f"created_at is of type {type(value).__name__}")
    return value if value.tzinfo is not None else value.replace(tzinfo=UTC)
