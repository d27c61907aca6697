"""Requests that Schemathesis makes up from a service's OpenAPI document, and what is wrong with the answers."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import Failure, FailureGroup
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
EXAMPLES = 8


@dataclass(frozen=True)
class Examined:
    """What came of it: operations are named as in "GET /v1/things/{id}"."""

    faults: list[str] = field(default_factory=list)
    asked: set[str] = field(default_factory=set)
    served: set[str] = field(default_factory=set)
    """Those that answered 2xx at least once: what was only ever refused has shown little."""


async def examine(
    app: FastAPI,
    headers: Mapping[str, str],
    known: Mapping[str, str],
    *,
    base_url: str = "http://service.test",
) -> Examined:
    """Asks every operation, and notes in which ways answers were not what the document says: a line for each kind.

    `known` gives path parameters the ids of things that exist; every second request has them, the others have made-up
    ones.
    """
    schema: Any = schemathesis.openapi.from_dict(app.openapi())
    operations = [each.ok() for each in schema.get_all_operations()]
    examined = Examined()
    async with _client(app, headers, base_url) as client:
        for operation in operations:
            name = f"{operation.method.upper()} {operation.path}"
            kinds: dict[str, str] = {}
            for number, case in enumerate(drawn(operation)):
                if number % 2:
                    case.path_parameters = {
                        parameter: known.get(parameter, value)
                        for parameter, value in (case.path_parameters or {}).items()
                    }
                status, faults = await _ask(client, case, base_url)
                examined.asked.add(name)
                if 200 <= status < 300:
                    examined.served.add(name)
                for fault in faults:
                    kinds.setdefault(fault.split()[0], f"{name}: {fault}")
            examined.faults.extend(kinds.values())
    return examined


def drawn(operation: Any, examples: int = EXAMPLES) -> list[Any]:
    """The same requests in every run."""
    cases: list[Any] = []

    @settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy())
    def collect(case: Any) -> None:
        cases.append(case)

    collect()
    return cases


async def _ask(client: httpx.AsyncClient, case: Any, base_url: str) -> tuple[int, list[str]]:
    """The status of the answer, 0 where none came, and what is wrong with it."""
    request = case.as_transport_kwargs(base_url=base_url)
    request.pop("cookies", None)  # the credential is a header
    if isinstance(request.get("data"), bytes | str):
        request["content"] = request.pop("data")
    try:
        async with asyncio.timeout(20):
            response = await client.request(**request)
    except TimeoutError:
        return 0, [f"no answer: {case.as_curl_command()}"]
    try:
        case.validate_response(response, checks=CHECKS)
    except FailureGroup as group:
        return response.status_code, [_told(each, response, case) for each in group.exceptions]
    except Failure as failure:
        return response.status_code, [_told(failure, response, case)]
    return response.status_code, []


def _told(failure: BaseException, response: httpx.Response, case: Any) -> str:
    what = " ".join(f"{type(failure).__name__} {failure}".split())
    return f"{what[:300]} [{response.status_code}] {response.text[:200]!r} <- {case.as_curl_command()[:500]}"


@asynccontextmanager
async def _client(app: FastAPI, headers: Mapping[str, str], base_url: str) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url=base_url, headers=headers) as client:
        yield client
