"""What is stored of a field that nobody may read: nothing, or a hash that cannot be tried out."""

from __future__ import annotations

import hashlib
import json
from decimal import Decimal

import msgspec
import pytest
from hypothesis import given
from pydantic import ValidationError

from usage_service.domain.errors import InvalidEvent
from usage_service.domain.event_checks import check_event
from usage_service.domain.field_rules import HASH_PREFIX, FieldRules, Treatment
from usage_service.domain.intake import _read_fast, read_body
from usage_service.domain.splitting import Form
from usage_service.settings import UsageSettings

from .test_intake import EVENTS, TENANT, event, resolve

KEY = b"k" * 32
RULES = {
    "http.request": {"$.email": "drop", "$.client.ip": "hash", "$.tags[0]": "drop", "$['a b']": "hash"},
    "*": {"$.phone": "hash"},
}


def rules(document=RULES, key=KEY) -> FieldRules:
    return FieldRules(
        {kind: {path: Treatment(each) for path, each in of.items()} for kind, of in document.items()}, key
    )


def kept(data, *, kind="http.request", tenant=TENANT, fields=None):
    copy = json.loads(json.dumps(data))
    (fields or rules()).apply(kind, tenant, copy)
    return copy


def test_what_is_left_of_an_event():
    data = {"email": "a@b.c", "client": {"ip": "192.0.2.1", "port": 80}, "tags": ["x", "y"], "phone": 5, "bytes": 1}
    left = kept(data)
    assert (left["tags"], left["bytes"], left["client"]["port"]) == ([None, "y"], 1, 80)
    assert "email" not in left
    for text in (left["client"]["ip"], left["phone"]):
        assert text.startswith(HASH_PREFIX)
        assert len(text) == len(HASH_PREFIX) + 22
    other = kept(data, kind="other")
    assert other == {**data, "phone": left["phone"]}


@pytest.mark.parametrize(
    "data", [None, {}, {"client": None}, {"client": "text"}, {"client": []}, {"tags": []}, {"tags": {"0": 1}}]
)
def test_what_is_not_there_stays_so(data):
    assert kept(data) == data


def test_equal_values_have_one_hash_in_a_tenant_and_another_elsewhere():
    def of(value, tenant=TENANT, key=KEY):
        return kept({"phone": value}, kind="t", tenant=tenant, fields=rules(key=key))["phone"]

    assert of("a") == of("a") != of("b")
    assert of("a") != of("a", tenant=TENANT[:-1] + "2")
    assert of("a") != of("a", key=b"other")
    assert of("1") != of(1)
    assert len({of("a"), hashlib.sha256(b"a").hexdigest(), hashlib.sha256(b'"a"').hexdigest()}) == 3


def test_numbers_that_are_equal_are_equal():
    values = ("1", "1.0", "10e-1")
    bodies = [json.dumps(event(data={"phone": "?"})).replace('"?"', value).encode() for value in values]
    stored = {read_body(body, Form.SINGLE, resolve, max_events=1, fields=rules()).accepted[0].value for body in bodies}
    assert len(stored) == 1


@given(EVENTS.map(lambda changes: event(**changes)))
def test_both_paths_treat_alike(sent):
    if isinstance(sent.get("data"), dict):
        sent["data"] = {**sent["data"], "phone": sent["data"], "client": {"ip": "a"}, "email": 1}
    raw, fields = json.dumps(sent).encode(), rules()
    fast = _read_fast(raw, Form.SINGLE, resolve, 10, fields)
    try:
        careful = check_event(raw, resolve, fields)
    except InvalidEvent:
        assert fast is None
    else:
        assert fast is None or fast == [careful]
        assert (b'"email":1' in careful.value) is ("email" in kept(sent["data"] or {}, kind=sent["type"]))


def test_an_event_that_is_kept_because_it_is_late_is_treated_as_well():
    late = event(time="2025-01-01T00:00:00Z", data={"email": "secret", "client": {"ip": "secret"}, "bytes": 1.50})
    body = json.dumps([late]).encode().replace(b"1.5", b"1.50")
    [refusal] = read_body(body, Form.ARRAY, resolve, max_events=1, fields=rules()).refused
    assert refusal.error.kind == "too-old"
    assert b"secret" not in refusal.raw
    assert json.loads(refusal.raw)["data"]["client"]["ip"].startswith(HASH_PREFIX)
    assert b"1.50" in refusal.raw


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fields": {"t": {"$.a": "hash"}}}, "USAGE_FIELDS_KEY"),
        ({"fields": {"t": {"a": "drop"}}}, "starts with"),
        ({"fields": {"t": {"$.*": "drop"}}}, "names and indices"),
        ({"fields": {"t": {"$.a": "md5"}}}, "drop"),
        ({"fields_key": "short"}, "32"),
    ],
)
def test_settings_that_would_not_hold(settings, message):
    with pytest.raises(ValidationError, match=message):
        UsageSettings(**settings)


def test_settings_from_the_environment(monkeypatch):
    assert UsageSettings().field_rules is None
    monkeypatch.setenv("USAGE_FIELDS", '{"http.request": {"$.email": "drop"}}')
    assert UsageSettings.from_env().field_rules is not None
    monkeypatch.setenv("USAGE_FIELDS_KEY", "k" * 32)
    monkeypatch.setenv("USAGE_FIELDS", '{"*": {"$.ip": "hash"}}')
    found = UsageSettings.from_env()
    assert found.field_rules is not None
    assert "kkk" not in repr(found)


def test_a_token_is_of_the_text_of_a_value():
    asked: list[tuple[str, str]] = []

    def tokens(tenant, text):
        asked.append((tenant, text))
        return f"token:{len(asked)}"

    known = rules({"*": {"$.user": "tokenise", "$.none": "tokenise", "$.n": "tokenise"}}).with_tokens(tokens)
    body = b'{"user": "alice", "n": 1.0, "none": null, "bytes": 1.50}'
    data = msgspec.json.Decoder(float_hook=Decimal).decode(body)
    known.apply("t", TENANT, data)
    assert data == {"user": "token:1", "n": "token:2", "none": None, "bytes": Decimal("1.50")}
    assert sorted(asked) == [(TENANT, "1"), (TENANT, "alice")]


def test_without_a_vault_no_value_is_let_through():
    with pytest.raises(LookupError):
        kept({"user": "alice"}, fields=rules({"*": {"$.user": "tokenise"}}))
