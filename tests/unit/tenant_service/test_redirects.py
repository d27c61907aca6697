"""Where a browser may be sent."""

import pytest

from tenant_service.domain.redirects import DEFAULT_TARGET, allowed_target

ORIGINS = ["http://127.0.0.1:8003", "https://billing.example"]


@pytest.mark.parametrize(
    "target",
    [
        "/docs",
        "/v1/x?y=z",
        "http://127.0.0.1:8003",
        "http://127.0.0.1:8003/console?a=b",
        "https://BILLING.example/console",
    ],
)
def test_allowed(target):
    assert allowed_target(target, ORIGINS) == target


@pytest.mark.parametrize("target", [None, ""])
def test_default(target):
    assert allowed_target(target, ORIGINS) == DEFAULT_TARGET


@pytest.mark.parametrize(
    "target",
    [
        "//evil.example",
        "///evil.example",
        "/\\evil.example",
        "\\\\evil.example",
        "https://evil.example",
        "http://127.0.0.1:8004/console",
        "http://127.0.0.1:8003@evil.example",
        "http://user:x@127.0.0.1:8003/",
        "http://127.0.0.1:8003.evil.example",
        "javascript:alert(1)",
        "data:text/html,x",
        "console",
        "/\tx",
        "\t//evil.example",
        " //evil.example",
        "http:127.0.0.1:8003",
        "http://[::1",
    ],
)
def test_refused(target):
    assert allowed_target(target, ORIGINS) is None
