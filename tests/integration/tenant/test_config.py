"""Layered configuration over HTTP."""

import json

import pytest

MAIL = {
    "type": "object",
    "properties": {
        "from": {"type": "string"},
        "retries": {"type": "integer", "minimum": 0},
        "hosts": {"type": "array", "items": {"type": "string"}},
        "smtp": {
            "type": "object",
            "properties": {
                "host": {"type": "string"},
                "password": {"type": "string", "minLength": 4, "writeOnly": True},
            },
            "required": ["host"],
        },
    },
    "required": ["from"],
    "additionalProperties": False,
}


async def problem(answer, status, kind):
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), answer.text
    assert answer.json()["type"] == kind, answer.text
    return answer.json()


async def test_layers_merge_and_say_where_values_came_from(api):
    assert (await api.http.put("/v1/config-schemas/mail", json=MAIL)).status_code == 201
    made = await api.create(region="eu-1")
    base = f"/v1/tenants/{made['id']}/config/mail"
    for path, document in (
        ("platform/mail", {"from": "p@x", "retries": 1, "hosts": ["a", "b"]}),
        ("region/eu-1/mail", {"retries": 2}),
        ("tier/standard/mail", {"smtp": {"host": "tier.example"}}),
    ):
        answer = await api.http.put(f"/v1/config/{path}", json=document)
        assert answer.status_code == 201, answer.text
    answer = await api.http.put(base, json={"from": None, "hosts": ["c"]})
    assert answer.status_code == 201, answer.text
    answer = await api.http.get(f"{base}/effective", params={"provenance": "true"})
    assert answer.json()["document"] == {
        "from": "p@x",
        "retries": 2,
        "hosts": ["c"],
        "smtp": {"host": "tier.example"},
    }
    assert {pointer: source["layer"] for pointer, source in answer.json()["provenance"].items()} == {
        "/from": "platform",
        "/retries": "region",
        "/hosts": "tenant",
        "/smtp/host": "tier",
    }
    assert answer.json()["valid"]
