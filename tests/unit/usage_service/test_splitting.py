"""Bodies in parts: the same events on either path, and no more memory than their bytes."""

from __future__ import annotations

import gc
import json
import re
import sys
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from usage_service.domain.errors import InvalidEvent
from usage_service.domain.event_checks import MAX_EVENT_BYTES, MAX_NESTING, check_event
from usage_service.domain.intake import _read_fast, is_long, read_body
from usage_service.domain.splitting import Form, MalformedBody, NoEvents, TooManyEvents, split

from .test_intake import EVENTS, event, read, refusals, resolve

BLANKS = st.sampled_from(["", " ", "\t", "\r", "\n", " \n"])
DOCUMENTS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=6) | st.sampled_from(['"', "\\", "[", "]}", ","]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)


def with_repeats(text: str, repeats: list[tuple[str, str]]) -> str:
    """The object with these members before its own, and the first of its own once more at the end."""
    first = next(iter(json.loads(text).items()))
    members = [*repeats, ("", text[1:-1]), (first[0], json.dumps(first[1]))]
    return "{" + ",".join(f"{json.dumps(name)}:{value}" if name else value for name, value in members) + "}"


REPEATS = st.lists(
    st.tuples(st.sampled_from(["id", "subject", "time", "data", "specversion"]), st.sampled_from(["null", "7", '"x"'])),
    max_size=2,
)
TEXTS = st.builds(with_repeats, EVENTS.map(lambda changes: json.dumps(event(**changes))), REPEATS)


def careful(body: bytes, form: Form):
    """What the careful path alone makes of a body; None where it refuses any of it."""
    try:
        return [check_event(raw, resolve) for raw in split(body, form, 10)]
    except (InvalidEvent, MalformedBody):
        return None


@given(st.lists(TEXTS, min_size=1, max_size=3), BLANKS)
def test_both_paths_give_the_same_answer_for_an_array(texts, blank):
    body = ("[" + f"{blank},{blank}".join(texts) + "]").encode()
    fast = _read_fast(body, Form.ARRAY, resolve, 10)
    assert fast is None or fast == careful(body, Form.ARRAY)


@given(st.lists(TEXTS, min_size=1, max_size=3), st.sampled_from(["", " ", "\r", "\n", "\r\n", " \n\n"]))
def test_both_paths_give_the_same_answer_for_lines(texts, end):
    body = end.join(texts).encode()
    fast = _read_fast(body, Form.LINES, resolve, 10)
    assert fast is None or fast == careful(body, Form.LINES)


@pytest.mark.parametrize("between", ["", " ", "\r"])
def test_events_on_one_line_are_refused_on_either_path(between):
    text = json.dumps(event())
    assert len(refusals(f"{text}{between}{text}".encode(), form=Form.LINES)) == 1


def test_an_event_over_several_lines_is_none():
    body = json.dumps(event(), indent=1).encode()
    assert len(refusals(body, form=Form.LINES)) == len(body.split(b"\n"))


@given(st.lists(DOCUMENTS, max_size=5), BLANKS)
def test_an_array_is_split_where_its_elements_end(documents, blank):
    body = f"{blank}[{blank}{f'{blank},{blank}'.join(map(json.dumps, documents))}{blank}]{blank}".encode()
    if not documents:
        with pytest.raises(NoEvents):
            split(body, Form.ARRAY, 10)
    else:
        assert [json.loads(part) for part in split(body, Form.ARRAY, 10)] == documents


@given(st.text(alphabet='[]{},:" \\1a', max_size=14))
def test_what_is_split_is_what_is_json(text):
    body = b"[" + text.encode() + b"]"
    try:
        document = json.loads(body)
    except ValueError:
        with pytest.raises(MalformedBody):
            split(body, Form.ARRAY, 100)
    else:
        if document:
            assert [json.loads(part) for part in split(body, Form.ARRAY, 100)] == document


@pytest.mark.parametrize("form", [Form.ARRAY, Form.LINES])
def test_the_number_of_events_is_bounded(form):
    texts = [json.dumps(event(id=f"{number}")) for number in range(3)]
    body = (f"[{','.join(texts)}]" if form is Form.ARRAY else "\n".join(texts)).encode()
    assert len(read(body, form=form, max_events=3).accepted) == 3
    with pytest.raises(TooManyEvents):
        read(body, form=form, max_events=2)


@pytest.mark.parametrize("depth", [MAX_NESTING + 1, 5_000, 100_000])
def test_one_event_that_nests_too_deeply_is_refused_alone(depth):
    deep = json.dumps(event(data={"a": "?"})).replace('"?"', "[" * (depth - 2) + "]" * (depth - 2))
    good = json.dumps(event())
    intake = read(f"[{good},{deep},{good}]".encode())
    assert [each.id for each in intake.accepted] == ["1", "1"]
    assert [(each.index, "nested too deeply" in each.error.reason) for each in intake.refused] == [(1, True)]


def test_one_event_that_is_too_large_is_refused_alone():
    good, large = json.dumps(event()), json.dumps(event(data={"a": "x" * MAX_EVENT_BYTES}))
    for body, form in ((f"[{good},{large},{good}]", Form.ARRAY), (f"{good}\n{large}\n{good}", Form.LINES)):
        intake = read(body.encode(), form=form)
        assert len(intake.accepted) == 2
        assert [(each.index, each.error.kind) for each in intake.refused] == [(1, "too-large")]


def test_a_large_body_gives_what_its_events_give_alone():
    texts = [json.dumps(event(id=f"{number}", data={"a": "x" * 1_000})).encode() for number in range(900)]
    texts[500] = b'{"id":7,' + texts[500][1:]
    body = b"[" + b",".join(texts) + b"]"
    assert len(body) > MAX_EVENT_BYTES
    intake = read_body(body, Form.ARRAY, resolve, max_events=1_000)
    assert intake.accepted == [check_event(text, resolve) for text in texts]


HOSTILE = {
    "numbers": b"[" + b"11," * 1_398_000 + b"1]",
    "lists": json.dumps([event(data={"a": "?"})]).encode().replace(b'"?"', b"[" + b"[]," * 1_397_000 + b"[]]"),
    "fractions": json.dumps(event(data={"a": "?"})).encode().replace(b'"?"', b"[" + b"0.1," * 1_047_000 + b"0.1]"),
    "lines": b"11\n" * 1_398_000,
    "texts": b'["' + b"\\ud800" * 699_000 + b'"]',
}


@pytest.mark.parametrize("form", [Form.SINGLE, Form.ARRAY])
@pytest.mark.parametrize("unit", [b"[],", b"[[[[[[]]]]]],", b'{"a":[0.1]},', b'"]",'])
def test_a_hostile_event_is_refused_unread_and_alone(form, unit):
    hostile = json.dumps(event(data={"a": "?"})).encode()
    hostile = hostile.replace(b'"?"', b"[" + unit * (MAX_EVENT_BYTES // len(unit)) + b"1]")
    body = hostile if form is Form.SINGLE else b"[%b,%b]" % (hostile, json.dumps(event()).encode())
    intake = read(body)
    assert [(each.index, each.error.kind) for each in intake.refused] == [(0, "too-large")]
    assert len(intake.accepted) == (form is Form.ARRAY)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_body_takes_little_more_than_its_bytes(name):
    body = HOSTILE[name]
    form = Form.LINES if name == "lines" else Form.EITHER
    assert len(body) > 4_000_000
    assert is_long(body)
    gc.collect()
    tracemalloc.start()
    try:
        try:
            assert read_body(body, form, resolve, max_events=10_000).accepted == []
        except TooManyEvents:
            assert name in {"numbers", "lines"}
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * len(body)


def test_what_a_bad_batch_holds_is_given_back_at_once():
    """A body whose refusals held it would live until the collector comes, or as long as the routes."""
    unknown = json.dumps([event(subject="nobody"), event(time="x"), event(id="")]).encode()
    gc.collect()
    gc.disable()
    try:
        before = sys.getrefcount(unknown)
        for _ in range(3):
            kept = read_body(unknown, Form.ARRAY, resolve, max_events=10)
            assert len(kept.refused) == 3
        assert sys.getrefcount(unknown) == before
    finally:
        gc.enable()


def test_many_values_are_long_and_many_events_are_not():
    batch = json.dumps([event(id=f"{number}") for number in range(2_000)]).encode()
    assert MAX_EVENT_BYTES * 0.5 < len(batch) < MAX_EVENT_BYTES
    assert not is_long(batch)
    assert is_long(re.sub(rb'"bytes": 1', b'"bytes": [' + b"0.1," * 50 + b"0.1]", batch)[:MAX_EVENT_BYTES])
