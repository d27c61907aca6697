"""What the tests of commands share: files, mappings, and a service that answers as it is told."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx

from usage_service.commands._api import Api, Credentials
from usage_service.commands._files import Source
from usage_service.commands._importing import import_lines
from usage_service.commands._ingest import Ingest
from usage_service.commands._mapping import RowMapping, TenantRule
from usage_service.commands._progress import Journal, Tally, Telling
from usage_service.commands._readers import Line

LOG = '192.0.2.7 - - [31/May/2025:23:30:00 -0100] "GET /t/acme/a?b=c HTTP/1.1" 200 512 "-" "curl"'
URL = "http://usage.test"


def source(path: Path, content: bytes | str) -> Source:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return Source.of(path, path.name)


def mapping(**changes) -> RowMapping:
    given = {"tenant": TenantRule(tenant="acme"), "type": "t", "source": "s", "time": "time", **changes}
    return RowMapping(**given)


def only(reads) -> Any:
    (read,) = reads
    return read


class Service:
    """Answers from a list of responses, then accepts; remembers the ids of each request, or the `whole` of it."""

    def __init__(self, *answers: httpx.Response | Exception) -> None:
        self.answers = list(answers)
        self.documents: list[dict] = []
        self.asked: list = []
        self.whole = False

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/oauth/token":
            return httpx.Response(200, json={"access_token": "t", "expires_in": 600})
        if self.documents:
            self.asked.append(json.loads(request.content))
            return httpx.Response(200, json=self.documents.pop(0))
        events = json.loads(request.content)
        self.asked.append(request.content if self.whole else [event["id"] for event in events])
        answer = self.answers.pop(0) if self.answers else accepted(len(events))
        if isinstance(answer, Exception):
            raise answer
        return answer

    def ingest(self, **options) -> Ingest:
        return Ingest(api_of(self), **options)


def api_of(service: Service) -> Api:
    client = httpx.AsyncClient(transport=httpx.MockTransport(service))
    return Api(client, Credentials(URL, "http://tenant.test", "id", "secret"))


def accepted(count: int, *rejected: tuple[int, str]) -> httpx.Response:
    errors = [{"index": index, "kind": kind, "reason": kind} for index, kind in rejected]
    return httpx.Response(202, json={"accepted": count - len(errors), "rejected": errors})


def lines(count: int, *, first: int = 0, size: int = 0):
    for number in range(first, count):
        yield Line(number, {"id": f"{number}", "data": "x" * size})


def run(service: Service, reads, tmp_path, *, first: int = 0, at_once: int = 1, **options) -> tuple[Tally, Journal]:
    file = source(tmp_path / "file", "content")
    tally, journal = Tally(), Journal(file, [], directory=tmp_path)
    telling = Telling(file, as_json=False)
    asyncio.run(import_lines(reads, service.ingest(**options), tally, telling, journal, first=first, at_once=at_once))
    return tally, journal
