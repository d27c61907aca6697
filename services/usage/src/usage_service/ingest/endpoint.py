"""POST /v1/events: a plain endpoint, because a framework's validation would cost more than the events.

A request is judged by its head first; then it gets memory, or is turned away; then its body is read.

202 means that Kafka has every event on all in-sync replicas. Any other status means that nothing of the request counts,
but for 503: an event whose acknowledgement did not come in time may yet count, and as it keeps its identity, repeating
the request is safe.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, Protocol
from uuid import NAMESPACE_OID, uuid5

import msgspec
import structlog
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
    RateLimited,
    ResidencyViolation,
    SharedTimeout,
    Tenant,
    TenantDirectory,
    TenantMismatch,
    TenantryError,
    TenantSuspended,
    Unavailable,
)
from tenantry.http import IDENTITY_KEY, MalformedJson, problem
from tenantry.identity import Principal, Scope
from tenantry.limits import RefusalPace
from usage_service.domain.event_checks import Accepted, Resolver
from usage_service.domain.field_rules import FieldRules
from usage_service.domain.intake import Intake, Refusal, is_long, read_body
from usage_service.domain.splitting import MalformedBody, NoEvents, TooManyEvents
from usage_service.ingest.binary_mode import event_document
from usage_service.ingest.bodies import READ_SECONDS, read_body_bytes
from usage_service.ingest.heads import Head, read_head
from usage_service.ingest.memory import Holding, IngestMemory
from usage_service.ingest.rates import IngestRates, class_of
from usage_service.ingest.routes import FOREIGN, RouteTable
from usage_service.tokens.vault import TreatedFields

INGESTED = Counter("usage_ingested_events_total", "Events of POST /v1/events by what became of them", ["outcome"])
_ACCEPTED, _REFUSED = INGESTED.labels("accepted"), INGESTED.labels("refused")
FOREIGN_EVENTS = Counter("usage_foreign_events_total", "Events of another tenant than the one of their sender")

_JSON = "application/json"
_SWITCHES = {"true": True, "false": False}
_SELECTOR = "tenant_id"
_encode = msgspec.json.Encoder().encode

log = structlog.get_logger(__name__)


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


KeepLate = Callable[[Sequence[Refusal], Resolver], Awaitable[None]]
"""Keeps the events among refusals that were refused for their age alone. Does not raise while a database is away."""

RefuseBilled = Callable[[Intake], Awaitable[Intake]]
"""Refuses what is no history: events of which a bill may have to be made. Raises Unavailable."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one request; `max_body_bytes` is what its body may have unpacked."""

    max_events: int
    max_body_bytes: int


class _Asked(NamedTuple):
    """What the query of a request says."""

    partial: bool
    echo: bool
    accept_late: bool
    billable: bool
    dry_run: bool


_ASKED_NOTHING = _Asked(partial=False, echo=False, accept_late=False, billable=False, dry_run=False)


class IngestEndpoint:
    """POST /v1/events."""

    def __init__(
        self,
        *,
        directory: TenantDirectory,
        clock: Clock,
        sender: Sender,
        limits: Limits,
        memory: IngestMemory,
        rates: IngestRates,
        keep_late: KeepLate,
        refuse_billed: RefuseBilled,
        fields: TreatedFields | None = None,
        region: str | None = None,
        read_seconds: float = READ_SECONDS,
    ) -> None:
        """`fields` are treated before anything is stored; None leaves all as they are.

        Tenants that are pinned to another `region` are refused.
        """
        self._fields = fields or TreatedFields()
        self._sender = sender
        self._limits = limits
        self._memory = memory
        self._rates = rates
        self._keep_late = keep_late
        self._refuse_billed = refuse_billed
        self._pace = RefusalPace()
        self._reading = SharedTimeout(read_seconds)
        # One at a time: each may take what its largest event takes.
        self._long_bodies = ThreadPoolExecutor(1, "long bodies")
        self._for_tenants = RouteTable(directory, clock, Operation.INGEST, region=region)
        self._for_services = RouteTable(directory, clock, Operation.SERVICE_INGEST, region=region)
        self._for_history = RouteTable(directory, clock, Operation.SERVICE_INGEST, region=region, accept_late=True)

    async def receive(self, request: Request) -> Response:
        """Answers one request; the middleware has identified its caller."""
        head = read_head(request.scope["headers"])
        asked = _asked(request)
        principal, selected = request.scope[IDENTITY_KEY]
        if not principal.acts_for_any_tenant and not principal.has_any(Scope.TENANT_WRITE, Scope.SERVICE):
            raise PermissionDenied("Sending usage needs the scope tenant:write.")
        if asked.accept_late and not (principal.acts_for_any_tenant and principal.has_any(Scope.PLATFORM)):
            raise PermissionDenied("Accepting events of any age needs the scope platform.")
        caller = principal.subject if selected is None else str(selected.id)
        with await self._hold(caller, head.length or 0) as holding:
            if selected is None or not principal.acts_for_any_tenant or class_of(principal) is None:
                return await self._take_in(request, head, asked, holding)
            # The middleware asks nothing of services here: the tenant's rate, and its place among others.
            admission = await self._rates.admit_service(selected, request.scope)
            with admission.place:
                response = await self._take_in(request, head, asked, holding)
            response.raw_headers.extend(admission.headers)
            return response

    async def _hold(self, caller: str, length: int) -> Holding:
        """Memory for a request; who has been refused it many times a second already hears so late."""
        try:
            return self._memory.hold(caller, length)
        except (RateLimited, Unavailable):
            await self._pace.wait(uuid5(NAMESPACE_OID, caller))
            raise

    async def _take_in(self, request: Request, head: Head, asked: _Asked, holding: Holding) -> Response:
        body = await read_body_bytes(
            request.receive, head, holding, limit=self._limits.max_body_bytes, within=self._reading
        )
        principal, selected = request.scope[IDENTITY_KEY]
        operation = class_of(principal)
        if head.coding is not None and selected is not None and operation is not None:
            await self._rates.charge_unpacked(selected, operation, request.scope, len(body))
        executor = self._long_bodies if is_long(body) else None
        resolve = self._resolver(principal, selected, asked, apart=executor is not None)
        read = partial(self._read, body, head, resolve)
        intake = await self._fields.read(read, keep=not asked.dry_run, executor=executor)
        if asked.accept_late and not asked.billable:
            intake = await self._refuse_billed(intake)
        # The records are made: what they came from is not held while Kafka takes them.
        del body, read
        if intake.refused:
            _note_foreign(intake, principal, selected)
        if asked.dry_run and (asked.partial or not intake.refused):
            return Response(_answer(intake, asked), 200, media_type=_JSON)
        limited = None
        if intake.refused and not asked.dry_run:
            await self._keep_late(intake.refused, resolve)
        if selected is None and operation is not None and (asked.partial or not intake.refused):
            intake, limited = await self._rates.refuse_beyond(intake)
        if intake.refused:
            _REFUSED.inc(len(intake.refused))
            if not asked.partial or (limited is not None and not intake.accepted):
                return problem(_refusal(intake, limited), request.url.path)
        await self._sender.send([(event.key, event.value) for event in intake.accepted])
        _ACCEPTED.inc(len(intake.accepted))
        headers = None if limited is None else {"Retry-After": str(limited.retry_after)}
        return Response(_answer(intake, asked), 202, headers, _JSON)

    def _read(self, body: bytes, head: Head, resolve: Resolver, fields: FieldRules | None) -> Intake:
        if head.attributes is not None:
            body = event_document(head.attributes, body)
        try:
            return read_body(body, head.form, resolve, max_events=self._limits.max_events, fields=fields)
        except TooManyEvents:
            raise PayloadTooLarge(f"A request holds at most {self._limits.max_events:,} events.") from None
        except NoEvents:
            raise EventsRefused("The request holds no event.") from None
        except MalformedBody as error:
            raise MalformedJson(f"{error}") from None

    def _resolver(self, principal: Principal, selected: Tenant | None, asked: _Asked, *, apart: bool) -> Resolver:
        if asked.accept_late:
            table = self._for_history
        else:
            table = self._for_tenants if class_of(principal) is Operation.INGEST else self._for_services
        if apart:
            table = table.anew()
        table.at()
        # A service that selects a tenant by header or host speaks for that tenant only.
        return table.resolve if selected is None else table.resolve_own(selected.id)


def _asked(request: Request) -> _Asked:
    """Raises InvalidRequest for what is no switch: a request without it would be another one."""
    if not request.scope["query_string"]:
        return _ASKED_NOTHING
    switches: dict[str, bool] = {}
    for name, value in request.query_params.multi_items():
        if name == _SELECTOR:
            continue
        if name not in _Asked._fields:
            raise _not_asked(name, f"there is no such parameter; there are {', '.join(_Asked._fields)}")
        if name in switches:
            raise _not_asked(name, "is given more than once")
        if value not in _SWITCHES:
            raise _not_asked(name, "is true or false")
        switches[name] = _SWITCHES[value]
    return _ASKED_NOTHING._replace(**switches)


def _not_asked(name: str, reason: str) -> InvalidRequest:
    name = name[:64]
    return InvalidRequest(f"{name}: {reason}.", errors=[{"loc": ["query", name], "msg": reason}])


def _note_foreign(intake: Intake, principal: Principal, selected: Tenant | None) -> None:
    """For whoever watches over the system: no honest client does it, and with `partial` the answer is 202."""
    foreign = sum(refusal.error.kind == FOREIGN for refusal in intake.refused)
    if foreign:
        FOREIGN_EVENTS.inc(foreign)
        tenant = None if selected is None else str(selected.id)
        log.warning("usage_foreign_events", count=foreign, caller=principal.subject, tenant=tenant)


def _error(refusal: Refusal) -> EventError:
    place: list[str | int] = [refusal.index, *([refusal.error.loc] if refusal.error.loc else [])]
    return EventError(
        loc=place,
        msg=refusal.error.reason,
        index=refusal.index,
        reason=f"{refusal.error.loc}: {refusal.error.reason}" if refusal.error.loc else refusal.error.reason,
        kind=refusal.error.kind,
    )


def _refusal(intake: Intake, limited: RateLimited | None) -> TenantryError:
    """One problem for all that is wrong. A foreign subject outranks everything: it is an attempt, not a mistake."""
    errors = [_error(refusal) for refusal in intake.refused]
    kinds = {error["kind"] for error in errors}
    if FOREIGN in kinds:
        return EventSubjectMismatch("An event's subject is not the tenant of the credential.", errors=errors)
    if limited is not None:
        limited.errors = list(errors)
        return limited
    if kinds == {"tenant-suspended"}:
        return TenantSuspended("The tenant is suspended.", errors=errors)
    if kinds == {"residency-violation"}:
        return ResidencyViolation("The tenant's data stays in another region.", errors=errors)
    if "too-large" in kinds:
        return PayloadTooLarge("An event, or what is sent of a tenant at once, is too large.", errors=errors)
    first = errors[0]
    return EventsRefused(
        f"{len(errors)} refused; the first at index {first['index']}: {first['reason']}", errors=errors
    )


def _answer(intake: Intake, asked: _Asked) -> bytes:
    document: dict[str, Any] = {"accepted": len(intake.accepted)}
    if asked.partial:
        document["rejected"] = [_error(refusal) for refusal in intake.refused]
    if asked.echo:
        document["events"] = [_echo(event) for event in intake.accepted]
    return _encode(document)


def _echo(event: Accepted) -> dict[str, Any]:
    return {"id": event.id, "time": event.time}
