"""The sign-in page: plain HTML without scripts."""

import secrets
from collections.abc import Collection

from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, StrictUndefined

_pages = Environment(loader=PackageLoader("tenant_service.sessions"), autoescape=True, undefined=StrictUndefined)


def sign_in_page(
    *, code: str, target: str, origins: Collection[str], error: str | None = None, status: int = 200
) -> HTMLResponse:
    """The form with a code filled in. Nothing is used up by looking at it, so a mail scanner cannot burn a code.

    The code stands in the address, so the page is not stored and tells no other site where it came from (with
    `no-referrer` browsers would send `Origin: null` with the form, which is checked). `form-action` names the origins
    that the form may end up at because browsers check it on the redirect that follows as well.
    """
    nonce = secrets.token_urlsafe(16)
    page = _pages.get_template("signin.html").render(code=code, target=target, error=error, nonce=nonce)
    targets = " ".join(["'self'", *sorted(origins)])
    policy = (
        f"default-src 'none'; style-src 'nonce-{nonce}'; form-action {targets}; frame-ancestors 'none'; base-uri 'none'"
    )
    headers = {
        "Content-Security-Policy": policy,
        "Cache-Control": "no-store",
        "Referrer-Policy": "same-origin",
        "X-Content-Type-Options": "nosniff",
    }
    return HTMLResponse(page, status_code=status, headers=headers)
