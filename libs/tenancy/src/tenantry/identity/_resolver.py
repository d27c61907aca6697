"""A company's own credentials: its cookies, its sessions, its gateway's headers."""

from typing import Protocol

from starlette.requests import HTTPConnection

from tenantry.identity._principal import Principal


class Resolver(Protocol):
    """Recognises a credential that Tenantry does not know, such as a company's own session cookie.

    It runs before every request and while streams last, so it should answer from memory or a fast store. Whoever it
    names is believed as much as a verified token: it must check what it reads, and that a browser's writes come from
    the company's own page.
    """

    async def __call__(self, request: HTTPConnection) -> Principal | None:
        """The caller; None where the request holds no credential of this kind.

        Raises `Unauthenticated` for one that is there and cannot be accepted: nothing falls back to another source.
        """
        ...
