"""What the head of a request says of its body: which form its events have, how it is packed, how long it is."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from tenantry import MalformedRequest, UnsupportedMedia
from usage_service.domain.event_checks import is_json_type
from usage_service.domain.splitting import Form
from usage_service.ingest.codings import ACCEPTED, Coding

Headers = Iterable[tuple[bytes, bytes]]

_FORMS: Final = {
    "application/cloudevents+json": Form.SINGLE,
    "application/cloudevents-batch+json": Form.ARRAY,
    "application/json": Form.EITHER,
    "application/x-ndjson": Form.LINES,
    "application/ndjson": Form.LINES,
    "application/jsonl": Form.LINES,
}
_CLOUDEVENTS: Final = "application/cloudevents"
_CODINGS: Final = {coding.value: coding for coding in Coding} | {"x-gzip": Coding.GZIP}
_UTF8: Final = frozenset({"utf-8", "utf8"})
_ATTRIBUTE: Final = b"ce-"
# Any of them says that the head is an event; one alone is a mistake that has to be told.
_TELLING: Final = frozenset({"specversion", "id", "source", "type"})
# What the head may not say: the Content-Type does, or the body.
_NOT_IN_HEADS: Final = frozenset({"datacontenttype", "data", "data_base64"})
_QUOTED: Final = re.compile(rb'"(?:[^"\\]|\\.)*"')
_QUOTED_PAIR: Final = re.compile(rb"\\(.)")
_PERCENT: Final = re.compile(rb"%([0-9a-fA-F]{2})?")


class Head(NamedTuple):
    """`attributes` are those of an event in binary content mode, whose data the body is; None in the other modes."""

    form: Form
    coding: Coding | None
    length: int | None
    attributes: Mapping[str, str] | None


def read_head(headers: Headers) -> Head:
    """Raises UnsupportedMedia (415), and MalformedRequest (400) for what can be understood in more than one way."""
    media: bytes | None = None
    length: int | None = None
    codings: list[bytes] = []
    attributes: dict[str, str] = {}
    for name, value in headers:
        if name == b"content-type":
            if media is not None:
                raise MalformedRequest("The request has more than one Content-Type.")
            media = value
        elif name == b"content-length":
            length = int(value)
        elif name == b"content-encoding":
            codings.append(value)
        elif name.startswith(_ATTRIBUTE):
            _add_attribute(attributes, name[len(_ATTRIBUTE) :].decode("latin-1"), value)
    coding = _coding(codings) if codings else None
    kind = "" if media is None else media.decode("latin-1")
    if attributes and not _TELLING.isdisjoint(attributes) and not kind.lstrip().lower().startswith(_CLOUDEVENTS):
        return Head(Form.SINGLE, coding, length, _event_of(attributes, kind))
    return Head(_form(kind), coding, length, None)


def _form(content_type: str) -> Form:
    known = _FORMS.get(content_type)
    if known is not None:
        return known
    media, *parameters = content_type.split(";")
    form = _FORMS.get(media.strip().lower())
    if form is None or not all(_is_utf8(parameter) for parameter in parameters):
        raise UnsupportedMedia(
            f"Send {', '.join(_FORMS)}, in UTF-8, or application/json with the event's attributes as ce- headers."
        )
    return form


def _is_utf8(parameter: str) -> bool:
    """Whether it is a charset that JSON may have; other parameters mean nothing here."""
    name, _, value = parameter.partition("=")
    return name.strip().lower() != "charset" or value.strip().strip('"').lower() in _UTF8


def _coding(headers: list[bytes]) -> Coding | None:
    """The one coding that a list names, if any. Empty members of lists and x-gzip are of RFC 9110 (5.6.1, 8.4.1.3)."""
    names = [name.strip().lower() for each in headers for name in each.decode("latin-1").split(",")]
    match [name for name in names if name not in {"", "identity"}]:
        case []:
            return None
        case [name] if name in _CODINGS:
            return _CODINGS[name]
    # RFC 9110, 15.5.16: an answer to an encoding says which ones there are.
    detail = f"Send the body as it is, or with one Content-Encoding of {ACCEPTED}."
    raise UnsupportedMedia(detail, headers={"Accept-Encoding": ACCEPTED})


def _add_attribute(attributes: dict[str, str], name: str, value: bytes) -> None:
    if name in attributes:
        raise MalformedRequest(f"The header ce-{name} is there more than once.")
    attributes[name] = _text(name, value)


def _text(name: str, value: bytes) -> str:
    """The value of a ce- header: quotes and percent-encoding undone, once each (HTTP binding 3.1.3.2)."""
    if value.startswith(b'"'):
        if not _QUOTED.fullmatch(value):
            raise MalformedRequest(f"The header ce-{name} has quotes that do not close.")
        value = _QUOTED_PAIR.sub(rb"\1", value[1:-1])
    try:
        return _PERCENT.sub(_byte, value).decode()
    except ValueError:
        raise MalformedRequest(f"The header ce-{name} is not percent-encoded UTF-8.") from None


def _byte(escape: re.Match[bytes]) -> bytes:
    return bytes([int(escape[1] or b"", 16)])  # a percent sign alone is no number: ValueError


def _event_of(attributes: dict[str, str], content_type: str) -> dict[str, str]:
    if forbidden := sorted(_NOT_IN_HEADS.intersection(attributes)):
        raise MalformedRequest(f"The header ce-{forbidden[0]} cannot be: the body and its Content-Type say it.")
    if not content_type:
        return attributes
    if not is_json_type(content_type.strip()):
        raise UnsupportedMedia("The data of an event in binary mode is application/json, in UTF-8.")
    return attributes | {"datacontenttype": content_type.strip()}
