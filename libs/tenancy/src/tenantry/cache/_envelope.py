"""What is stored: a value with the tenant, the name and the type that it was stored under, all checked on reading."""

from hashlib import blake2b
from typing import Any, Final, Generic, TypeVar
from uuid import UUID

import msgspec

T = TypeVar("T")


class Foreign(Exception):
    """A value that does not belong where it was found. `reason` is "tenant", "name", "type" or "corrupt"."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class _Envelope(msgspec.Struct, array_like=True):
    tenant: bytes
    name: str
    type: str
    absent: bool
    body: msgspec.Raw


_decode_envelope: Final = msgspec.msgpack.Decoder(_Envelope).decode
_encode: Final = msgspec.msgpack.Encoder().encode
_NOTHING: Final = msgspec.Raw(msgspec.msgpack.encode(None))


class Codec(Generic[T]):
    """Values of one type as bytes. A changed type has another tag, so what an older process stored is a miss."""

    def __init__(self, value_type: type[T]) -> None:
        """Raises `TypeError` for a type that msgspec cannot read back."""
        self._decode = msgspec.msgpack.Decoder(value_type).decode
        schema = msgspec.json.schema(value_type)
        self._tag = blake2b(msgspec.json.encode(schema, order="deterministic"), digest_size=8).hexdigest()

    def seal(self, tenant_id: UUID, name: str, value: T | None) -> bytes:
        """`value`, or with None that there is none, to be stored as `name`."""
        body = _NOTHING if value is None else msgspec.Raw(_encode(value))
        return _encode(_Envelope(tenant_id.bytes, name, self._tag, value is None, body))

    def open(self, tenant_id: UUID, name: str, stored: bytes) -> T | None:
        """The value that was stored as `name`, None where none is. Raises `Foreign`, and never returns such a value."""
        try:
            envelope = _decode_envelope(stored)
        except msgspec.MsgspecError:
            raise Foreign("corrupt") from None
        if envelope.tenant != tenant_id.bytes:
            raise Foreign("tenant")
        if envelope.name != name:
            raise Foreign("name")
        if envelope.type != self._tag:
            raise Foreign("type")
        if envelope.absent:
            return None
        try:
            return self._decode(envelope.body)
        except msgspec.MsgspecError:
            raise Foreign("corrupt") from None


def argument_key(arguments: tuple[Any, ...]) -> str:
    """Arguments of a function as the text of a key: different ones of the same types have different texts.

    Raises `TypeError` for an argument that is not plain data.
    """
    return msgspec.json.encode(arguments, order="deterministic").decode()
