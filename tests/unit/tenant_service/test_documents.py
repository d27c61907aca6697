"""Configuration documents as they come in."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenant_service.domain.documents import (
    LARGEST_NUMBER,
    MAX_BYTES,
    MAX_DEPTH,
    BadDocument,
    NotJson,
    check_document,
    parse_document,
)

NUMBERS = st.integers(-LARGEST_NUMBER, LARGEST_NUMBER) | st.floats(-1e15, 1e15, allow_nan=False).map(lambda n: n + 0.0)
TEXT = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=10)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(TEXT, VALUES, max_size=4))
def test_what_is_good_comes_through(document):
    assert parse_document(json.dumps(document).encode()) == document


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"{}{}",
        b"\xef\xbb\xbf{}",
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b'{"a": -Infinity}',
        b"\xff",
        b'{"a": 01}',
        b"{'a': 1}",
        b'{"a": 1,}',
        b'{"a": ' + b"9" * 5000 + b"}",
        b"[" * 30_000,
        b'{"a": "\n"}',
    ],
)
def test_what_is_not_json(raw):
    with pytest.raises(NotJson):
        parse_document(raw)


@pytest.mark.parametrize(
    ("raw", "pointer"),
    [
        (b"[]", ""),
        (b'"x"', ""),
        (b"null", ""),
        (b'{"a": {"b": 1, "b": 2}}', ""),
        (b'{"a": {"b": "\\u0000"}}', "/a/b"),
        (b'{"a": ["x", "\\ud800"]}', "/a/1"),
        (b'{"a": 1e400}', "/a"),
        (b'{"a": 9007199254740992}', "/a"),
        (b'{"a": -9007199254740992.0}', "/a"),
        (b'{"a": [{"$secret": 1}]}', "/a/0"),
        (b'{"' + b"k" * 129 + b'": 1}', ""),
        (b'{"x": "' + b"y" * MAX_BYTES + b'"}', ""),
    ],
)
def test_what_is_no_document(raw, pointer):
    with pytest.raises(BadDocument) as refused:
        parse_document(raw)
    assert refused.value.pointer == pointer


def nested(levels):
    document: dict[str, Any] = {}
    for _ in range(levels - 1):
        document = {"a": document}
    return document


def test_depth_is_bounded():
    check_document(nested(MAX_DEPTH))
    with pytest.raises(BadDocument):
        check_document(nested(MAX_DEPTH + 1))
    check_document(nested(MAX_DEPTH + 1), max_depth=MAX_DEPTH + 1)


@pytest.mark.parametrize(("written", "read"), [("1.0", "1"), ("1e2", "100"), ("-0.0", "0"), ("1.5", "1.5")])
def test_whole_numbers_are_whole(written, read):
    assert json.dumps(parse_document(b'{"a": %s}' % written.encode())) == f'{{"a": {read}}}'
