"""Corrections: what cancels an event, and how it travels in `usage.events.v1` (rule 6).

A correction is an event of the type `CORRECTION` whose data names the event that it cancels, and may hold the event
that counts instead. Both are one record, under the key of the cancelled event's copies: so they are applied together,
in the order in which the partition has them.
"""

from __future__ import annotations

from datetime import datetime
from hashlib import blake2b
from typing import Final
from uuid import UUID

import msgspec

from usage_service.domain.errors import InvalidEvent
from usage_service.domain.identity import canonical_json

CORRECTION: Final = "tenantry.correction"
"""The type of corrections, which no other event may have."""
SOURCE: Final = "tenantry/usage"

_NULL: Final = msgspec.Raw(b"null")


class Cancels(msgspec.Struct, frozen=True, omit_defaults=True):
    """The event that is cancelled. `time` is the event's own, and needed only where ids return or history is meant."""

    source: str
    id: str
    time: datetime | None = None


class CorrectionData(msgspec.Struct, frozen=True):
    """The data of a correction. `replacement` is an event as the ingest stores it, or null."""

    cancels: Cancels
    replacement: msgspec.Raw = _NULL
    reason: str | None = None


class _Record(msgspec.Struct, frozen=True):
    id: str
    subject: str
    time: datetime
    data: CorrectionData
    specversion: str = "1.0"
    source: str = SOURCE
    type: str = CORRECTION


_encode = msgspec.json.Encoder(decimal_format="number").encode
_decode = msgspec.json.Decoder(CorrectionData).decode


def correction_id(subject: str, asked: object) -> UUID:
    """The same for the same request, so that a correction that is repeated is a copy."""
    return UUID(bytes=blake2b(f"{subject}\0{canonical_json(asked)}".encode(), digest_size=16).digest())


def correction_record(
    subject: str, correction: UUID, cancels: Cancels, replacement: bytes | None, reason: str | None, now: datetime
) -> bytes:
    """The value of the record. `replacement` is the text of an event."""
    event = _NULL if replacement is None else msgspec.Raw(replacement)
    return _encode(_Record(str(correction), subject, now, CorrectionData(cancels, event, reason)))


def read_correction(text: bytes) -> tuple[Cancels, bytes | None, str | None]:
    """What a record's data cancels, the text of what counts instead, and the reason.

    Raises InvalidEvent for what the ingest would not have let through.
    """
    try:
        data = _decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidEvent("data", f"not a correction: {error}") from None
    return data.cancels, None if data.replacement == _NULL else bytes(data.replacement), data.reason
