"""From what a client asks to records of `usage.events.v1`: nothing is sent unless all of it is in order."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, Final
from uuid import UUID

import msgspec

from tenantry import FieldError, MalformedRequest, PayloadTooLarge, TenantMismatch
from tenantry.http import MalformedJson
from usage_service.domain.corrections import Cancels, correction_id, correction_record
from usage_service.domain.errors import InvalidEvent
from usage_service.domain.event_checks import (
    MAX_ID,
    MAX_SOURCE,
    MAX_SUBJECT,
    Route,
    check_event,
    check_text,
    decode_document,
    parse_time,
)
from usage_service.domain.field_rules import FieldRules
from usage_service.ingest.endpoint import Sender
from usage_service.ingest.routes import RouteTable
from usage_service.tokens.vault import TreatedFields

MAX_CORRECTIONS: Final = 1_000
MAX_REASON: Final = 500

_MEMBERS: Final = frozenset({"cancels", "replacement", "reason"})
_CANCELS: Final = frozenset({"source", "id", "time", "subject"})
_encode = msgspec.json.Encoder(decimal_format="number").encode


class CorrectionsRefused(MalformedRequest):
    """At least one correction of the request cannot be accepted, so none was."""

    type = "invalid-corrections"
    title = "Some corrections are not valid; none was accepted"


class CorrectionSubjectMismatch(TenantMismatch):
    """A correction names another tenant than the one that the request is about."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """A correction with the record that it becomes: key and value."""

    id: UUID
    record: tuple[bytes, bytes]


class Corrections:
    """Takes in corrections. `fields` are treated before anything is stored; None leaves all as they are."""

    def __init__(self, routes: RouteTable, sender: Sender, fields: TreatedFields | None) -> None:
        self._routes = routes
        self._sender = sender
        self._fields = fields or TreatedFields()

    async def take(self, body: bytes, selected: UUID | None) -> list[UUID]:
        """Sends the corrections of a body; their ids. As `read`, and raises Unavailable while Kafka does not take them:
        repeating it is safe.
        """
        self._routes.at()
        accepted = await self._fields.read(partial(self.read, body, selected))
        await self._sender.send([each.record for each in accepted])
        return [each.id for each in accepted]

    def read(self, body: bytes, selected: UUID | None, fields: FieldRules | None = None) -> list[Accepted]:
        """The corrections of a body, all of the tenant that the request has selected, if it has.

        Raises MalformedJson, PayloadTooLarge, CorrectionsRefused, and CorrectionSubjectMismatch.
        """
        try:
            document = decode_document(body)
        except InvalidEvent as error:
            raise MalformedJson(error.reason) from None
        asked = document if isinstance(document, list) else [document]
        if len(asked) > MAX_CORRECTIONS:
            raise PayloadTooLarge(f"A request holds at most {MAX_CORRECTIONS:,} corrections.")
        accepted: list[Accepted] = []
        errors: list[tuple[int, InvalidEvent]] = []
        for index, each in enumerate(asked):
            try:
                accepted.append(self._read(each, selected, fields))
            except InvalidEvent as error:
                errors.append((index, error.with_traceback(None)))  # whose frames hold the body, and this list
        if any(error.kind == "tenant-mismatch" for _, error in errors):
            raise CorrectionSubjectMismatch("A correction is not of the tenant of the request.")
        if errors or not asked:
            raise CorrectionsRefused(
                "The request holds no correction." if not asked else "", errors=[_problem(*each) for each in errors]
            )
        return accepted

    def _read(self, asked: Any, selected: UUID | None, fields: FieldRules | None) -> Accepted:
        if not isinstance(asked, dict):
            raise InvalidEvent("", "a correction is a JSON object")
        _only(asked, _MEMBERS, "")
        cancels = asked.get("cancels")
        if not isinstance(cancels, dict):
            raise InvalidEvent("cancels", "says which event: {source, id}")
        _only(cancels, _CANCELS, "cancels.")
        replacement = asked.get("replacement")
        if replacement is not None and not isinstance(replacement, dict):
            raise InvalidEvent("replacement", "is an event")
        source, event_id = check_text(cancels, "source", MAX_SOURCE), check_text(cancels, "id", MAX_ID)
        reason = asked.get("reason")
        if reason is not None and not (isinstance(reason, str) and len(reason) <= MAX_REASON):
            raise InvalidEvent("reason", f"is a text of at most {MAX_REASON} characters")
        route = self._route(cancels, replacement, selected)
        time = None if cancels.get("time") is None else parse_time(cancels["time"])
        correction = correction_id(route.subject, asked)
        event = None
        if replacement is not None:
            if (replacement.get("source"), replacement.get("id")) == (source, event_id):
                raise InvalidEvent("replacement.id", "is that of the event it replaces; both stay, each under its own")
            written = {"subject": route.subject, **({} if time is None else {"time": cancels["time"]})}
            # A null is an attribute that is not there, also where the event that is cancelled says it.
            said = {name: value for name, value in replacement.items() if value is not None}
            event = check_event(_encode({**written, **said}), lambda _: route, fields)
        value = None if event is None else event.value
        record = correction_record(
            route.subject, correction, Cancels(source, event_id, time), value, reason, route.bounds.now
        )
        return Accepted(correction, (route.key_of(source, event_id), record))

    def _route(self, cancels: dict[str, Any], replacement: dict[str, Any] | None, selected: UUID | None) -> Route:
        subjects = [each["subject"] for each in (cancels, replacement or {}) if each.get("subject") is not None]
        if selected is not None:
            subjects.append(str(selected))
        if not subjects:
            raise InvalidEvent("cancels.subject", "is required where the request selects no tenant")
        routes = [self._routes.resolve(check_text({"subject": each}, "subject", MAX_SUBJECT)) for each in subjects]
        if len({route.subject for route in routes}) > 1:
            raise InvalidEvent("subject", "is not the tenant of the request", kind="tenant-mismatch")
        if routes[0].refusal is not None:
            raise routes[0].refusal.error()
        return routes[0]


def _only(document: dict[str, Any], known: frozenset[str], place: str) -> None:
    for name in document:
        if name not in known:
            raise InvalidEvent(f"{place}{name[:40]}", "is not known here")


def _problem(index: int, error: InvalidEvent) -> FieldError:
    return {"loc": [index, *([error.loc] if error.loc else [])], "msg": error.reason}
