"""What is left of an event, and of what was counted of it, once a person's values are gone."""

from __future__ import annotations

import json
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from usage_service.domain.erasing import (
    PREFIX,
    Erasing,
    check_values,
    counting_meters,
    dimension_paths,
    new_pseudonym,
    reads_as_json,
    telling_meters,
    unique_path,
)
from usage_service.domain.meters import Aggregation, CompiledMeter, Meter, MeterDefinition
from usage_service.domain.rollups import value_hash
from usage_service.metering.rows import decode_data

VALUES = {"alice": "erased:A", "alice@example.com": "erased:B"}


def erasing(paths=None, values=None, *, attributes=False) -> Erasing:
    return Erasing.of(values or VALUES, paths, attributes=attributes)


def meter(**definition) -> Meter:
    given = {"event_type": "t", "aggregation": Aggregation.COUNT, **definition}
    return Meter(id=UUID(int=1), slug="m", version=1, definition=MeterDefinition(**given), since=0)


def left(data, *args, **kwargs):
    found = erasing(*args, **kwargs).data(json.dumps(data))
    return json.loads(found.text), found.count


def test_every_text_that_is_a_value_gives_way():
    data = {"user": "alice", "deep": [{"mail": "alice@example.com"}, "alice", "alice2"], "n": 1.50, "alice": True}
    erased = {"user": "erased:A", "deep": [{"mail": "erased:B"}, "erased:A", "alice2"], "n": 1.5, "alice": True}
    assert left(data) == (erased, 3)


def test_at_paths_a_number_is_a_value_too():
    data = {"user": 42, "same": {"user": 42.0}, "bytes": 42, "text": "42"}
    assert left(data, ["$.user", "$.same.user", "$.text"], {"42": "erased:N"}) == (
        {"user": "erased:N", "same": {"user": "erased:N"}, "bytes": 42, "text": "erased:N"},
        3,
    )


def test_what_has_none_is_not_touched():
    text = '{ "user": "bob", "n": 1.50 }'
    assert erasing().data(text).text is text


@pytest.mark.parametrize(
    "text",
    ['{"user":"\\u0061lice"}', '{"user":"bob","user":"alice"}', '{"user":"alice","user":"bob"}', '[["alice"]]'],
)
def test_a_value_does_not_hide_behind_json(text):
    assert "alice" not in erasing().data(text).text.replace('"user":"bob"', "") or text.endswith('"bob"}')
    assert "alice" not in str(json.loads(erasing().data(text).text))


texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8) | st.just("alice")
documents = st.recursive(
    texts | st.integers(-5, 5) | st.none() | st.booleans(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=4,
)


@given(documents, texts.filter(lambda text: text and not reads_as_json(text)), st.booleans())
def test_no_text_stays_and_nothing_else_changes(document, value, ascii_only):
    document = {"data": document}
    found = erasing(values={value: "erased:X"}).data(json.dumps(document, ensure_ascii=ascii_only))

    def expected(part):
        if isinstance(part, dict):
            return {name: expected(each) for name, each in part.items()}
        if isinstance(part, list):
            return [expected(each) for each in part]
        return "erased:X" if part == value and isinstance(part, str) else part

    assert json.loads(found.text) == expected(document)


@given(
    st.dictionaries(st.sampled_from("ab"), documents, max_size=2),
    st.sampled_from([None, ["$.a"], ["$.a.x", "$.b"], ["$.b[0]"], ["$.a", "$.a.alice"]]),
)
def test_a_group_follows_its_events(data, paths):
    """What is counted anew of an erased event is in the group that its rollup was put into."""
    grouped = meter(group_by={"first": "$.a", "second": "$.b"})
    compiled, erase = CompiledMeter.of(grouped), erasing(paths)
    before = compiled.group(decode_data(json.dumps(data)))
    after = compiled.group(decode_data(erase.data(json.dumps(data)).text))
    moved = erase.group(before.text, dimension_paths(grouped))
    # A text that is JSON itself cannot be told from an object in a group.
    if not any(isinstance(value, str) and value[:1] in {"{", "["} for value in data.values()):
        assert (moved or before) == after


def test_a_path_and_one_below_it_are_both_looked_at():
    by_user = meter(group_by={"user": "$.user"})
    both = erasing(["$.user", "$.user.id"])
    for data in ({"user": "alice"}, {"user": {"id": "alice"}}):
        before = CompiledMeter.of(by_user).group(data)
        after = CompiledMeter.of(by_user).group(json.loads(both.data(json.dumps(data)).text))
        assert both.group(before.text, dimension_paths(by_user)) == after != before


def test_different_values_stay_different():
    unique = meter(aggregation=Aggregation.UNIQUE_COUNT, value="$.user")
    hashes = erasing().values_at(unique_path(unique))
    assert hashes == {value_hash(value): value_hash(pseudonym) for value, pseudonym in VALUES.items()}
    assert erasing(["$.other"]).values_at(unique_path(unique)) == {}
    assert erasing().values_at(unique_path(meter(aggregation=Aggregation.SUM, value="$.user"))) == {}


def test_pseudonyms_are_of_nothing():
    assert new_pseudonym() != new_pseudonym()
    assert len(new_pseudonym()) == len(PREFIX) + 22


@pytest.mark.parametrize("value", ["42", "1e3", "true", "null", '{"a":1}', "[1]"])
def test_what_could_be_no_text_needs_paths(value):
    assert check_values([value], has_paths=False) is not None
    assert check_values([value], has_paths=True) is None


@pytest.mark.parametrize("value", ["", "x" * 257, "__other__", "a\0b"])
def test_values_that_cannot_be(value):
    assert check_values([value], has_paths=True) is not None


def test_a_quantity_is_not_erased():
    volume = meter(aggregation=Aggregation.SUM, value="$.bytes")
    assert counting_meters(erasing(["$.bytes"]), [volume]) == ["m"]
    assert counting_meters(erasing(["$.user"]), [volume]) == []
    assert counting_meters(erasing(["$.user"]), [meter(aggregation=Aggregation.UNIQUE_COUNT, value="$.user")]) == []


@pytest.mark.parametrize(
    ("condition", "tells"),
    [
        ({"ne": "alice"}, True),
        ({"in": ["alice", "bob"]}, True),
        ({"like": "%@example.com"}, True),
        ({"exists": True}, False),
        ({"eq": "bob"}, False),
    ],
)
def test_filters_that_tell_a_value_from_its_pseudonym(condition, tells):
    filtered = meter(filter={"$.user": condition})
    assert bool(telling_meters(erasing(), [filtered])) == tells
    assert telling_meters(erasing(["$.other"]), [filtered]) == []


def test_a_reason_quotes_nobody():
    long = "a" * 60
    found = erasing(values={"alice": "erased:A", long: "erased:L"})
    assert found.prose("not the text 'alice', but malice") == "not the text 'erased:A', but malice"
    assert found.prose(f"not the text {long[:40]!r}") == "not the text 'erased:L'"


def test_no_tail_of_a_value_stays():
    """One value may be the beginning of another, and what is quoted of a long one may end where a word does."""
    mail, long, quote = "alice@example.com", "a" * 40 + "@example.com", 'say "it\'s"\n'
    values = {"alice": "erased:A", mail: "erased:M", long: "erased:L", quote: "erased:Q"}
    found = erasing(values=values)
    assert found.prose(f"conflict of {mail} and {long}") == "conflict of erased:M and erased:L"
    assert found.prose(f"not the text {quote[:40]!r}") == "not the text 'erased:Q'"
    assert found.plain(f'{{"user":"{mail}","by":"alice'.encode()) == b'{"user":"erased:M","by":"erased:A'
