"""What the head of a request says, and what nobody could understand in one way only."""

from __future__ import annotations

import pytest

from tenantry import MalformedRequest, UnsupportedMedia
from usage_service.domain.splitting import Form
from usage_service.ingest.codings import Coding
from usage_service.ingest.heads import read_head

BINARY = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/app", "ce-type": "t", "ce-subject": "org-1"}


def head(*pairs: tuple[str, str], **named: str):
    headers = [*pairs, *((name.replace("_", "-"), value) for name, value in named.items())]
    return read_head([(name.encode(), value.encode("latin-1")) for name, value in headers])


def binary(content_type: str | None = "application/json", **changes: str):
    attributes = BINARY | {f"ce-{name}": value for name, value in changes.items()}
    pairs = list(attributes.items()) + ([("content-type", content_type)] if content_type is not None else [])
    return head(*pairs)


@pytest.mark.parametrize(
    ("content_type", "form"),
    [
        ("application/cloudevents+json", Form.SINGLE),
        ("application/cloudevents-batch+json", Form.ARRAY),
        ("application/json", Form.EITHER),
        ("application/x-ndjson", Form.LINES),
        ("Application/CloudEvents+JSON ; Charset=UTF-8", Form.SINGLE),
        ('application/json;charset="utf-8"', Form.EITHER),
        ("application/jsonl; charset=utf8; profile=x", Form.LINES),
        ("application/json;", Form.EITHER),
    ],
)
def test_content_types(content_type, form):
    assert head(content_type=content_type).form is form


@pytest.mark.parametrize(
    "content_type",
    [
        "",
        "text/plain",
        "application/cloudevents+avro",
        "application/json, application/json",
        "application/json; charset=latin-1",
        "application/json; charset=utf-8; charset=utf-16",
        "application/json; charset",
    ],
)
def test_content_types_that_are_not_ours(content_type):
    with pytest.raises(UnsupportedMedia):
        head(content_type=content_type)


def test_no_content_type_and_two_of_them():
    with pytest.raises(UnsupportedMedia):
        head()
    with pytest.raises(MalformedRequest):
        head(("content-type", "application/json"), ("content-type", "application/x-ndjson"))


@pytest.mark.parametrize(
    ("values", "coding"),
    [
        ((), None),
        (("identity",), None),
        (("",), None),
        (("GZip",), Coding.GZIP),
        (("x-gzip",), Coding.GZIP),
        (("zstd",), Coding.ZSTD),
        ((" , identity,\tzstd , ",), Coding.ZSTD),
        (("identity", "gzip"), Coding.GZIP),
    ],
)
def test_content_encodings(values, coding):
    pairs = [("content-encoding", value) for value in values]
    assert head(("content-type", "application/json"), *pairs).coding is coding


@pytest.mark.parametrize("values", [("br",), ("gzip, gzip",), ("gzip", "zstd"), ("zstd;q=1",), ("g zip",), ("x-zstd",)])
def test_an_answer_to_other_encodings_names_ours(values):
    with pytest.raises(UnsupportedMedia) as refused:
        head(("content-type", "application/json"), *(("content-encoding", value) for value in values))
    assert refused.value.headers["Accept-Encoding"] == "gzip, zstd"


def test_an_event_in_the_head():
    found = binary("application/json; charset=utf-8", time="2026-11-21T10:00:00Z", traceparent="00-ab")
    assert found.form is Form.SINGLE
    assert found.attributes == {
        "specversion": "1.0",
        "id": "1",
        "source": "/app",
        "type": "t",
        "subject": "org-1",
        "time": "2026-11-21T10:00:00Z",
        "traceparent": "00-ab",
        "datacontenttype": "application/json; charset=utf-8",
    }


def test_ce_headers_beside_a_structured_event_say_nothing():
    for content_type in ("application/cloudevents+json", "application/cloudevents-batch+json; charset=utf-8"):
        assert binary(content_type).attributes is None
    assert head(("content-type", "application/json"), ("ce-traceparent", "x")).attributes is None


@pytest.mark.parametrize(
    ("sent", "meant"),
    [
        ("plain", "plain"),
        ("Euro%20%E2%82%AC%20%F0%9F%98%80", "Euro \u20ac \U0001f600"),
        ("%e2%82%ac", "\u20ac"),
        ("%41", "A"),
        ("100%2541", "100%41"),
        ('"with \\"quotes\\" and %20"', 'with "quotes" and  '),
        ("%00", "\0"),
        ("", ""),
    ],
)
def test_values_are_unquoted_and_decoded_once(sent, meant):
    assert binary(id=sent).attributes["id"] == meant


def test_a_value_may_be_bare_utf8():
    sent = [(name.encode(), value.encode()) for name, value in BINARY.items()] + [(b"ce-x", "\u20ac".encode())]
    attributes = read_head(sent).attributes
    assert attributes is not None
    assert attributes["x"] == "\u20ac"


@pytest.mark.parametrize("value", ["%C0%A0", "%ff", "50%", "%", "%4", "%zz", '"open', '"a"b', "\xe4"])
def test_values_that_cannot_be_decoded(value):
    with pytest.raises(MalformedRequest):
        binary(id=value)


def test_an_attribute_is_there_once():
    with pytest.raises(MalformedRequest, match="ce-id"):
        head(*BINARY.items(), ("ce-id", "1"))


@pytest.mark.parametrize("name", ["datacontenttype", "data", "data_base64"])
def test_what_the_head_does_not_say(name):
    with pytest.raises(MalformedRequest, match=name):
        binary(**{name: "x"})


@pytest.mark.parametrize(
    "content_type", ["application/xml", "text/json", "application/x-ndjson", "application/json; charset=x"]
)
def test_data_in_binary_mode_is_json(content_type):
    with pytest.raises(UnsupportedMedia):
        binary(content_type)


@pytest.mark.parametrize("content_type", [None, "application/json", "application/vnd.acme.usage+json"])
def test_kinds_of_json(content_type):
    assert binary(content_type).attributes.get("datacontenttype") == content_type
