"""Spans of requests: where they belong, what they are called, and that they hold nothing of a tenant but its id."""

import logging

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from tenantry import StartupRefused, configure_tracing, current_traceparent, tenant_scope
from tenantry._tracing import is_tracing, span, stop_tracing

CALLER = f"00-{'a' * 32}-{'b' * 16}-01"


@pytest.fixture
def spans():
    exporter = InMemorySpanExporter()
    assert configure_tracing("things", exporter=exporter)
    yield exporter.get_finished_spans
    stop_tracing()


def test_nothing_is_traced_unless_the_environment_says_so(monkeypatch):
    for name in ("TENANTRY_OTEL_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    assert not configure_tracing("things")
    assert not is_tracing()
    with span("nothing") as started:
        assert started is None
        assert current_traceparent() is None


@pytest.mark.parametrize("name", ["TENANTRY_OTEL_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"])
def test_the_environment_switches_it_on_and_off(monkeypatch, name):
    monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    assert not configure_tracing("things")
    monkeypatch.delenv("OTEL_SDK_DISABLED")
    try:
        assert configure_tracing("things")
        assert is_tracing()
    finally:
        stop_tracing()


def test_it_says_which_extra_is_missing(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "opentelemetry.sdk.trace", None)
    monkeypatch.setenv("TENANTRY_OTEL_ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(StartupRefused, match=r"tenantry\[otel\]"):
        configure_tracing("things")


async def test_a_request_is_a_span_of_its_callers_trace(spans, make_app, client_of, issuer, a):
    async with client_of(make_app()) as client:
        answer = await client.get(
            "/v1/things/secret-name", headers=issuer.bearer() | {"traceparent": CALLER}, params={"q": "secret-word"}
        )
        await client.get("/healthz")
    assert answer.status_code == 200
    (one,) = spans()
    assert one.name == "GET /v1/things/{thing}"
    assert f"{one.context.trace_id:032x}" == "a" * 32
    assert f"{one.parent.span_id:016x}" == "b" * 16
    assert dict(one.attributes) == {
        "http.request.method": "GET",
        "http.route": "/v1/things/{thing}",
        "http.response.status_code": 200,
        "tenant.id": str(a.id),
    }
    assert "secret" not in one.to_json()


async def test_methods_and_paths_that_callers_invent_name_no_span(spans, make_app, client_of, issuer):
    async with client_of(make_app()) as client:
        await client.request("INVENTED", "/also/invented", headers=issuer.bearer())
    (one,) = spans()
    assert one.name == "_OTHER none"
    assert "nvented" not in one.to_json()


async def test_an_error_is_told_by_its_type_alone(spans, make_app, client_of, issuer):
    app = make_app()

    @app.get("/v1/fails")
    async def fail() -> None:
        raise ValueError("secret row")

    async with client_of(app) as client:
        assert (await client.get("/v1/fails", headers=issuer.bearer())).status_code == 500
    (one,) = spans()
    assert one.status.status_code is StatusCode.ERROR
    assert one.attributes["http.response.status_code"] == 500
    assert "secret" not in one.to_json()
    assert not one.events


def test_spans_are_nested_and_carry_the_tenant(spans, a):
    with tenant_scope(a), span("outer", parent=CALLER), span("inner", links=(CALLER, "nonsense")):
        inside = current_traceparent()
    inner, outer = spans()
    assert inner.parent.span_id == outer.context.span_id
    assert inside == f"00-{'a' * 32}-{inner.context.span_id:016x}-01"
    assert len(inner.links) == 1
    assert inner.attributes["tenant.id"] == str(a.id)
    assert current_traceparent() is None


def test_a_parent_that_cannot_be_read_begins_a_new_trace(spans):
    logging.getLogger("opentelemetry").setLevel(logging.ERROR)
    with span("alone", parent="00-nonsense"):
        pass
    (one,) = spans()
    assert one.parent is None
