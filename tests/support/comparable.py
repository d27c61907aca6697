"""Answers as a caller sees them who looks for a difference."""

import json
from typing import Any

import httpx


def comparable(response: httpx.Response) -> tuple[int, dict[str, str], bytes]:
    """What a caller could tell two answers apart by, but for the path and the id that the caller itself chose."""
    headers = {name: value for name, value in response.headers.items() if name not in {"x-request-id", "date"}}
    body = response.content
    if response.headers.get("content-type", "").startswith("application/problem+json"):
        problem: dict[str, Any] = json.loads(body)
        problem.pop("instance")
        problem.pop("request_id", None)
        body = json.dumps(problem, sort_keys=True).encode()
        headers.pop("content-length")
    return response.status_code, headers, body
