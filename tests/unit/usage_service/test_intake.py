"""What POST /v1/events accepts, what it refuses and why; the fast path and the careful path agree."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenantry.events import partition_key
from usage_service.domain.errors import InvalidEvent
from usage_service.domain.event_checks import (
    MAX_EVENT_BYTES,
    MAX_NESTING,
    Bounds,
    Route,
    SubjectRefusal,
    check_event,
)
from usage_service.domain.intake import _read_fast, read_body
from usage_service.domain.splitting import Form, MalformedBody, NoEvents, TooManyEvents

NOW = datetime(2026, 11, 21, 10, tzinfo=UTC)
TENANT = "018f0000-0000-7000-8000-000000000001"
ROUTE = Route(TENANT, TENANT.encode(), Bounds(NOW, NOW - timedelta(days=35), NOW + timedelta(minutes=10)))


def resolve(subject: str) -> Route:
    if subject.lower() in {TENANT, "org-1"}:
        return ROUTE
    return Route("", b"", ROUTE.bounds, SubjectRefusal("names no tenant", "unknown-tenant"))


def spread(_subject: str) -> Route:
    """A tenant over several keys."""
    return dataclasses.replace(ROUTE, spread=partial(partition_key, TENANT, 8))


def event(**changes):
    base = {
        "specversion": "1.0",
        "id": "1",
        "source": "app",
        "type": "http.request",
        "subject": TENANT,
        "time": "2026-11-21T09:00:00Z",
        "data": {"bytes": 1},
    }
    return {name: value for name, value in (base | changes).items() if value is not ...}


def read(body, form=Form.EITHER, max_events=100):
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return read_body(raw, form, resolve, max_events=max_events)


def refusals(body, **options):
    return [(each.index, each.error.loc, each.error.reason) for each in read(body, **options).refused]


def stored(body):
    intake = read(body)
    assert not intake.refused, intake.refused
    return [json.loads(each.value) for each in intake.accepted]


def test_an_event_is_stored_as_it_was_sent():
    assert stored(event()) == [event()]


def test_the_subject_is_rewritten_to_the_tenants_uuid():
    assert stored([event(subject="org-1"), event(subject=TENANT.upper())]) == [event(), event()]


def test_copies_of_an_event_of_a_spread_tenant_have_one_key_on_either_path():
    numbered = [event(id=f"{number}", time=time) for number in range(40) for time in ("2026-11-21T09:00:00Z", ...)]
    fast = _read_fast(json.dumps(numbered).encode(), Form.ARRAY, spread, 100)
    assert fast is not None
    keys = [each.key for each in fast]
    assert keys == [check_event(json.dumps(each).encode(), spread).key for each in numbered]
    assert keys[::2] == keys[1::2]
    assert len(set(keys)) == 8
    assert spread(TENANT).key_of("app", "1") == keys[2]
    assert {each.key for each in read(numbered).accepted} == {TENANT.encode()}


def test_a_missing_time_is_the_receipt_time():
    assert stored(event(time=...)) == [event(time="2026-11-21T10:00:00Z")]


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("2026-11-21T09:00:00.1234569Z", "2026-11-21T09:00:00.123456Z"),
        ("2026-11-21T09:00:00.999999999Z", "2026-11-21T09:00:00.999999Z"),
        ("2026-11-21T10:30:00.5+01:30", "2026-11-21T09:00:00.500000Z"),
        ("2026-11-21t09:00:00z", "2026-11-21T09:00:00Z"),
    ],
)
def test_times_are_cut_to_microseconds_in_utc(sent, kept):
    assert stored(event(time=sent))[0]["time"] == kept


@pytest.mark.parametrize(
    ("changes", "loc"),
    [
        ({"specversion": "0.3"}, "specversion"),
        ({"specversion": ...}, "specversion"),
        ({"id": ""}, "id"),
        ({"id": 5}, "id"),
        ({"id": "x" * 257}, "id"),
        ({"source": None}, "source"),
        ({"type": ...}, "type"),
        ({"subject": "nobody"}, "subject"),
        ({"time": "yesterday"}, "time"),
        ({"time": "2026-11-21T09:00:00"}, "time"),
        ({"time": "2026-11-21T09:00:60Z"}, "time"),
        ({"time": 5}, "time"),
        ({"time": "2026-11-21T10:10:00.000001Z"}, "time"),
        ({"time": "2026-10-17T09:59:59.999999Z"}, "time"),
        ({"data": "text"}, "data"),
        ({"data": [1]}, "data"),
        ({"data_base64": "AA=="}, "data_base64"),
        ({"datacontenttype": "application/xml"}, "datacontenttype"),
        ({"datacontenttype": "application/json; charset=latin-1"}, "datacontenttype"),
        ({"datacontenttype": ["application/json"]}, "datacontenttype"),
        ({"datacontenttype": {}}, "datacontenttype"),
        ({"datacontenttype": ""}, "datacontenttype"),
        ({"Extra": 1}, "Extra"),
        ({"ext_ra": 1}, "ext_ra"),
        ({"extra": {"a": 1}}, "extra"),
        ({"data": {"a": "\0"}}, ""),
        ({"data": {"a": 10**38}}, "data"),
    ],
)
def test_what_is_refused_and_where(changes, loc):
    [(index, place, reason)] = refusals([event(), event(**changes), event()])
    assert (index, place) == (1, loc)
    assert reason


@pytest.mark.parametrize("time", ["2026-11-21T10:10:00Z", "2026-10-17T10:00:00Z"])
def test_the_bounds_of_time_are_inclusive(time):
    assert stored(event(time=time))[0]["time"] == time


@pytest.mark.parametrize(
    ("number", "accepted"),
    [
        ("99999999999999999999999999999999999999", True),
        ("999999999999999999999999999999999999999", False),
        ("1e20", True),
        ("1e21", False),
        ("1e-18", True),
        ("1e-19", False),
        ("1.5", True),
        ("0.1234567890123456789", False),
        ("1e999999999999999999999", False),
        ("-0", True),
    ],
)
def test_the_bounds_of_numbers(number, accepted):
    body = json.dumps(event()).replace('"bytes": 1', f'"bytes": {number}').encode()
    assert bool(read(body).accepted) is accepted


@pytest.mark.parametrize("number", ["01", "1.", ".5", "+1", "NaN", "Infinity", "0x10", "1_000"])
def test_only_json_numbers_are_json(number):
    body = json.dumps([event()]).replace('"bytes": 1', f'"bytes": {number}').encode()
    with pytest.raises(MalformedBody):
        read(body)


def test_numbers_keep_their_digits():
    body = json.dumps(event()).replace('"bytes": 1', '"bytes": 0.10').encode()
    assert b'"bytes":0.10' in read(body).accepted[0].value


def test_a_text_of_backslash_and_u0000_is_no_nul():
    assert stored(event(data={"path": "\\u0000"}))[0]["data"] == {"path": "\\u0000"}


@pytest.mark.parametrize("escape", [b"\\ud800", b"\\udc00", b"\\ud800\\ud800", b"\xff", b"\xed\xa0\x80"])
def test_strings_that_are_not_unicode_are_refused(escape):
    body = b"[" + json.dumps(event(data={"a": "?"})).encode().replace(b"?", escape) + b"]"
    assert refusals(body)[0][0] == 0


def test_of_a_member_that_is_there_twice_the_last_one_counts():
    body = json.dumps(event()).encode().replace(b'"id": "1"', b'"id": "0", "id": "2"')
    assert read(body).accepted[0].id == "2"


@pytest.mark.parametrize("media_type", ["application/json; charset=UTF-8", "Application/JSON", "application/x.y+json"])
def test_kinds_of_json_are_kept_as_they_are_called(media_type):
    assert stored(event(datacontenttype=media_type))[0]["datacontenttype"] == media_type


def test_a_null_attribute_is_not_there():
    nothing = event(dataschema=None, datacontenttype=None, traceparent=None)
    assert stored(nothing) == [event()]


@pytest.mark.parametrize("form", [Form.SINGLE, Form.LINES, Form.EITHER])
@pytest.mark.parametrize("text", ["x", "\\\\u0000", "[{" * 200])
@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_how_deep_events_nest(form, text, opening, closing):
    def nested(depth):
        # The event and its data are two levels.
        inner = opening * (depth - 2) + f'"{text}"' + closing * (depth - 2)
        return json.dumps(event(data={"a": "?"})).replace('"?"', inner).encode()

    assert len(read(nested(MAX_NESTING), form=form).accepted) == 1
    for depth in (MAX_NESTING + 1, 450, 900):
        [(_, _, reason)] = refusals(nested(depth), form=form)
        assert "nested too deeply" in reason


def test_many_brackets_side_by_side_are_not_deep():
    assert stored(event(data={"a": [[]] * 500, "b": "[" * 500}))[0]["data"] == {"a": [[]] * 500, "b": "[" * 500}


def test_extension_attributes_are_kept():
    assert stored(event(traceparent="00-ab", sampled=True, hops=3))[0]["traceparent"] == "00-ab"


def test_lines_are_events_of_their_own():
    lines = b"\n".join([json.dumps(event()).encode(), b"", b"{", json.dumps(event(id="2")).encode(), b""])
    intake = read(lines, form=Form.LINES)
    assert [each.id for each in intake.accepted] == ["1", "2"]
    assert [each.index for each in intake.refused] == [1]


def test_two_halves_do_not_make_a_line():
    assert len(refusals(b'{"a":"\n"},{"b":"c"}', form=Form.LINES)) == 2


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"[1", b"nope", b"\xef\xbb\xbf{}", b"[" * 100_000])
def test_bodies_that_hold_no_events(body):
    with pytest.raises(MalformedBody):
        read(body)


@pytest.mark.parametrize(("body", "form"), [(b" [ ]\n", Form.ARRAY), (b"\n \n\r\n", Form.LINES), (b"", Form.LINES)])
def test_bodies_that_are_well_formed_and_empty(body, form):
    with pytest.raises(NoEvents):
        read(body, form=form)


@pytest.mark.parametrize("body", [b"5", b"null", b'"x"', b"[5]", b"[null]"])
def test_json_that_is_no_event_is_refused_by_index(body):
    assert refusals(body)[0][:2] == (0, "")


def test_too_many_and_too_large():
    with pytest.raises(TooManyEvents):
        read([event()] * 3, max_events=2)
    [(_, _, reason)] = refusals(event(data={"a": "x" * MAX_EVENT_BYTES}))
    assert "bytes" in reason


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**40), 10**40) | st.text(max_size=8) | st.floats(allow_nan=False),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=5), children, max_size=3),
    max_leaves=8,
)
DAYS = (datetime(2026, 11, 20), datetime(2026, 11, 22))  # noqa: DTZ001 (hypothesis wants them naive)
TIMES = st.one_of(
    st.just("2026-11-21T09:00:00.1234567Z"),
    st.datetimes(*DAYS).map(lambda each: each.isoformat() + "Z"),
    st.text(max_size=4),
    st.none(),
)
EVENTS = st.fixed_dictionaries(
    {},
    optional={
        "specversion": st.sampled_from(["1.0", "1.0", "1.0", "0.3"]),
        "id": st.text(min_size=0, max_size=4),
        "source": st.just("app"),
        "type": st.just("t"),
        "subject": st.sampled_from([TENANT, "org-1", "nobody"]),
        "time": TIMES,
        "data": st.dictionaries(st.text(max_size=4), JSON, max_size=3) | JSON,
        "extension": JSON,
    },
)


@given(EVENTS.map(lambda changes: event(**changes)))
def test_both_paths_give_the_same_answer(sent):
    raw = json.dumps(sent).encode()
    fast = _read_fast(raw, Form.SINGLE, resolve, 10)
    try:
        careful = check_event(raw, resolve)
    except InvalidEvent:
        assert fast is None
    else:
        assert fast is None or fast == [careful]


@pytest.mark.parametrize("digits", [r"999999\u0039", r"99999\u00399", r"\u0039999999"])
def test_a_time_is_cut_however_its_digits_are_written(digits):
    body = json.dumps(event(time="TIME")).replace("TIME", f"2026-11-21T09:00:00.{digits}Z").encode()
    assert stored(body)[0]["time"] == "2026-11-21T09:00:00.999999Z"


@pytest.mark.parametrize("lone", [r"\ud800", r"\udc00", r"\ud83d\ud83d\ude00", r"\\\ud800"])
def test_a_lone_surrogate_refuses_its_own_event(lone):
    bad = json.dumps(event(data={"a": "TEXT"})).replace("TEXT", lone)
    good = json.dumps(event(data={"a": "\N{GRINNING FACE} \\ud800"}))
    reason = "a string contains NUL (\\u0000) or a lone surrogate"
    assert refusals(f"[{good}, {bad}]".encode()) == [(1, "", reason)]
    assert refusals(bad.encode()) == [(0, "", reason)]
    assert [json.loads(each.value) for each in read(f"[{good}, {bad}]".encode()).accepted] == [json.loads(good)]
