"""What a record of `usage.rollups.v1` says: the absolute state of a rollup, or a cut of the stream."""

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple
from uuid import UUID

import msgspec
from aiokafka import ConsumerRecord

from tenantry.events import InvalidRecord

CUT = b"cut"


class RollupKey(NamedTuple):
    """Which hour of which group of which version of a meter."""

    tenant_id: UUID
    meter: str
    window_start: datetime
    meter_version: int
    group_hash: str


class Rollup(msgspec.Struct, frozen=True, kw_only=True):
    """One hour of one group of one meter, absolute: a higher `version` replaces a lower one and never adds to it."""

    tenant_id: UUID
    meter: str
    meter_version: int
    aggregation: str
    granularity: str
    window_start: datetime
    group: Mapping[str, str]
    group_hash: str
    count: Decimal
    sum: Decimal | None
    min: Decimal | None
    max: Decimal | None
    latest: Mapping[str, Any] | None
    integral: Decimal | None
    version: int

    @property
    def key(self) -> RollupKey:
        return RollupKey(self.tenant_id, self.meter, self.window_start, self.meter_version, self.group_hash)


class Cut(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that usage received before `offsets` lies before this record, in its partition of the rollups."""

    cut_id: UUID
    offsets: Mapping[str, int]
    partition: int
    partitions: int


class Withdrawn(msgspec.Struct, frozen=True):
    """There is no such rollup any more; one that comes after begins anew with any version."""

    key: RollupKey


_decode_rollup = msgspec.json.Decoder(Rollup).decode
_decode_cut = msgspec.json.Decoder(Cut).decode


def decode_record(record: "ConsumerRecord[bytes, bytes]") -> Rollup | Cut | Withdrawn:
    """Raises InvalidRecord."""
    try:
        if record.value is None:
            return Withdrawn(_key_of(record.key or b""))
        if any(name == "type" and value == CUT for name, value in record.headers):
            return _decode_cut(record.value)
        rollup = _decode_rollup(record.value)
    except (msgspec.DecodeError, ValueError) as error:
        raise InvalidRecord(record, str(error)) from error
    if rollup.window_start.tzinfo is None:
        raise InvalidRecord(record, "window_start has no offset from UTC")
    return rollup


def _key_of(key: bytes) -> RollupKey:
    """Of a record's key, as in `<tenant>|<meter>@<version>|hour|<start>|<group hash>`. Raises ValueError."""
    tenant, meter, _, window, group_hash = key.decode().split("|")
    slug, _, version = meter.rpartition("@")
    return RollupKey(UUID(tenant), slug, datetime.fromisoformat(window), int(version), group_hash)
