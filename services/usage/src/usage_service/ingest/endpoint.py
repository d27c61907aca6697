"""POST /v1/events: a plain endpoint, because a framework's validation would cost more than the events.

202 means that Kafka has every event on all in-sync replicas. Anything else means that nothing was accepted, but for
503: an event whose acknowledgement did not come in time may yet count, and as it keeps its identity, repeating the
request is safe.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec
from prometheus_client import Counter
from starlette.requests import Request
from starlette.responses import Response

from tenantry import (
    Clock,
    FieldError,
    InvalidRequest,
    MalformedRequest,
    Operation,
    PayloadTooLarge,
    PermissionDenied,
    Tenant,
    TenantDirectory,
    TenantMismatch,
    TenantSuspended,
    UnsupportedMedia,
)
from tenantry.http import MalformedJson, problem
from tenantry.identity import Scope
from usage_service.domain.event_checks import Accepted, Resolver
from usage_service.domain.intake import Form, Intake, MalformedBody, Refusal, TooManyEvents, read_body
from usage_service.ingest.routes import RouteTable

INGESTED = Counter("usage_ingested_events_total", "Events of POST /v1/events by what became of them", ["outcome"])

_FORMS = {
    "application/cloudevents+json": Form.SINGLE,
    "application/cloudevents-batch+json": Form.ARRAY,
    "application/json": Form.EITHER,
    "application/x-ndjson": Form.LINES,
    "application/ndjson": Form.LINES,
    "application/jsonl": Form.LINES,
}
_JSON = "application/json"
_SWITCHES = {"true": True, "false": False}
_encode = msgspec.json.Encoder().encode


class EventError(FieldError):
    """What is wrong with the event at `index`; `loc` is the place from there, `reason` is for people and logs."""

    index: int
    reason: str
    kind: str


class EventsRefused(MalformedRequest):
    """At least one event of the request cannot be accepted, so none was."""

    type = "invalid-events"
    title = "Some events are not valid; none was accepted"


class EventSubjectMismatch(TenantMismatch):
    """A credential of one tenant sent an event of another."""


class Sender(Protocol):
    """Returns when all (key, value) are acknowledged; raises Unavailable otherwise."""

    async def send(self, events: Sequence[tuple[bytes, bytes]]) -> None: ...


@dataclass(frozen=True, slots=True)
class Limits:
    max_events: int


class IngestEndpoint:
    """POST /v1/events."""

    def __init__(self, *, directory: TenantDirectory, clock: Clock, sender: Sender, limits: Limits) -> None:
        self._sender = sender
        self._limits = limits
        self._for_tenants = RouteTable(directory, clock, Operation.INGEST)
        self._for_services = RouteTable(directory, clock, Operation.SERVICE_INGEST)

    async def receive(self, request: Request) -> Response:
        """Answers one request; the middleware has identified its caller."""
        form = _form(request.headers.get("content-type"))
        if request.headers.get("content-encoding", "identity").lower() != "identity":
            raise UnsupportedMedia("Send the body as it is, without Content-Encoding.")
        partial, echo = _switch(request, "partial"), _switch(request, "echo")
        principal, selected = request.scope["tenantry.identity"]
        if not principal.acts_for_any_tenant and not principal.has_any(Scope.TENANT_WRITE, Scope.SERVICE):
            raise PermissionDenied("Sending usage needs the scope tenant:write.")
        body = await request.body()
        resolve = self._resolver(principal.acts_for_any_tenant, selected)
        try:
            intake = read_body(body, form, resolve, max_events=self._limits.max_events)
        except TooManyEvents:
            raise PayloadTooLarge(f"A request holds at most {self._limits.max_events:,} events.") from None
        except MalformedBody as error:
            raise MalformedJson(f"{error}") from None
        if intake.refused:
            INGESTED.labels("refused").inc(len(intake.refused))
            if not partial:
                return problem(_refusal(intake), request.url.path)
        await self._sender.send([(event.key, event.value) for event in intake.accepted])
        INGESTED.labels("accepted").inc(len(intake.accepted))
        return Response(_answer(intake, partial=partial, echo=echo), 202, media_type=_JSON)

    def _resolver(self, any_tenant: bool, selected: Tenant | None) -> Resolver:
        table = self._for_services if any_tenant else self._for_tenants
        table.at()
        # A service that selects a tenant by header or host speaks for that tenant only.
        return table.resolve if selected is None else table.resolve_own(selected.id)


def _form(content_type: str | None) -> Form:
    media, _, parameters = (content_type or "").partition(";")
    form = _FORMS.get(media.strip().lower())
    charset = parameters.strip().lower().removeprefix("charset=").strip('"')
    if form is None or (parameters.strip() and charset not in {"utf-8", "utf8"}):
        raise UnsupportedMedia(f"Send {', '.join(_FORMS)}, in UTF-8.")
    return form


def _switch(request: Request, name: str) -> bool:
    value = request.query_params.get(name, "false")
    if value not in _SWITCHES:
        raise InvalidRequest(f"{name} is true or false.", errors=[{"loc": ["query", name], "msg": "true or false"}])
    return _SWITCHES[value]


def _error(refusal: Refusal) -> EventError:
    place: list[str | int] = [refusal.index, *([refusal.error.loc] if refusal.error.loc else [])]
    return EventError(
        loc=place,
        msg=refusal.error.reason,
        index=refusal.index,
        reason=f"{refusal.error.loc}: {refusal.error.reason}" if refusal.error.loc else refusal.error.reason,
        kind=refusal.error.kind,
    )


def _refusal(intake: Intake) -> MalformedRequest | PayloadTooLarge | PermissionDenied:
    """One problem for all that is wrong. A foreign subject outranks everything: it is an attempt, not a mistake."""
    errors = [_error(refusal) for refusal in intake.refused]
    kinds = {error["kind"] for error in errors}
    if "tenant-mismatch" in kinds:
        return EventSubjectMismatch("An event's subject is not the tenant of the credential.", errors=errors)
    if kinds == {"tenant-suspended"}:
        return TenantSuspended("The tenant is suspended.", errors=errors)
    if "too-large" in kinds:
        return PayloadTooLarge("An event is too large.", errors=errors)
    first = errors[0]
    return EventsRefused(
        f"{len(errors)} refused; the first at index {first['index']}: {first['reason']}", errors=errors
    )


def _answer(intake: Intake, *, partial: bool, echo: bool) -> bytes:
    document: dict[str, Any] = {"accepted": len(intake.accepted)}
    if partial:
        document["rejected"] = [_error(refusal) for refusal in intake.refused]
    if echo:
        document["events"] = [_echo(event) for event in intake.accepted]
    return _encode(document)


def _echo(event: Accepted) -> dict[str, Any]:
    return {"id": event.id, "time": event.time}
