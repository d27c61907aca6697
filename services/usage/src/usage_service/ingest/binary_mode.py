"""CloudEvents in binary content mode: the head is the event, and the body its data."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from tenantry.http import MalformedJson

_any_json = msgspec.json.Decoder(msgspec.Raw)
_encode = msgspec.json.Encoder().encode


def event_document(attributes: Mapping[str, str], data: bytes) -> bytes:
    """The same event in structured mode, so that everything else knows one form. Raises MalformedJson (400).

    The data is looked at first: put between braces unseen, `{}, "subject": …` would be more than data.
    """
    document = _encode(attributes)
    if not data.strip():
        return document
    try:
        _any_json.decode(data)
    except (msgspec.DecodeError, RecursionError) as error:
        raise MalformedJson(f"The data of the event is not valid JSON: {error}") from None
    return b'%b,"data":%b}' % (document[:-1], data)
