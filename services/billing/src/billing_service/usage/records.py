"""What a record of `usage.rollups.v1` says: the absolute state of a rollup, or a cut of the stream."""

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec
from aiokafka import ConsumerRecord

from tenantry.events import InvalidRecord

CUT = b"cut"


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
    def key(self) -> tuple[UUID, str, datetime, int, str]:
        return (self.tenant_id, self.meter, self.window_start, self.meter_version, self.group_hash)


class Cut(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that usage received before `offsets` lies before this record, in its partition of the rollups."""

    cut_id: UUID
    offsets: Mapping[str, int]
    partition: int
    partitions: int


_decode_rollup = msgspec.json.Decoder(Rollup).decode
_decode_cut = msgspec.json.Decoder(Cut).decode


def decode_record(record: "ConsumerRecord[bytes, bytes]") -> Rollup | Cut | None:
    """The rollup or cut in `record`; None for a tombstone. Raises InvalidRecord for anything else."""
    if record.value is None:
        return None
    try:
        if any(name == "type" and value == CUT for name, value in record.headers):
            return _decode_cut(record.value)
        rollup = _decode_rollup(record.value)
    except msgspec.DecodeError as error:
        raise InvalidRecord(record, str(error)) from error
    if rollup.window_start.tzinfo is None:
        raise InvalidRecord(record, "window_start has no offset from UTC")
    return rollup
