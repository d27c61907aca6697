"""Reading a token: its header and its claims are input, and are read in exactly one way or not at all."""

import json
from base64 import urlsafe_b64decode
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from tenantry._errors import Unauthenticated
from tenantry.identity._principal import PrincipalKind

MAX_TOKEN_LENGTH: Final = 4096
# Everything but a session, which is a cookie: a token that was exchanged for one is its user's.
_TOKEN_KINDS: Final = frozenset(PrincipalKind) - {PrincipalKind.SESSION}
# Claims by which other issuers name several tenants. A token says which one it is for, or it is for none.
_TENANT_LISTS: Final = ("tenant_ids", "tenants")


class InvalidToken(Unauthenticated):
    """The bearer token cannot be accepted (RFC 6750, 3.1)."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail, headers={"WWW-Authenticate": 'Bearer error="invalid_token"'})


def read_header(token: str, *, max_length: int = MAX_TOKEN_LENGTH) -> dict[str, Any]:
    """The header, unverified: it only says whether the signature is worth checking, and with which of our keys."""
    segments = token.split(".")
    if len(token) <= max_length and len(segments) == 3:
        try:
            raw = urlsafe_b64decode(segments[0] + "=" * (-len(segments[0]) % 4))
            header = json.loads(raw, object_pairs_hook=_refuse_repetition)
        except (ValueError, RecursionError):
            header = None
        if isinstance(header, dict):
            return header
    raise InvalidToken("The token is neither an API key nor a signed JWT.")


class Claims:
    """The claims of a token whose signature is right: still input, and checked as such."""

    def __init__(self, payload: bytes) -> None:
        try:
            claims = json.loads(payload, object_pairs_hook=_refuse_repetition)
        except (ValueError, RecursionError) as error:
            raise InvalidToken("The token's claims cannot be read.") from error
        if not isinstance(claims, dict):
            raise InvalidToken("The token's claims are not an object.")
        self._claims: dict[str, Any] = claims

    def __contains__(self, name: str) -> bool:
        return name in self._claims

    def text(self, name: str) -> str:
        value = self._claims.get(name)
        if not isinstance(value, str) or not value:
            raise InvalidToken(f"The token's claim {name} is missing or no text.")
        return value

    def instant(self, name: str) -> datetime:
        value = self._claims.get(name)
        # True is an int to Python and a second after the epoch to no one.
        if not isinstance(value, int) or isinstance(value, bool):
            raise InvalidToken(f"The token's claim {name} is missing or no whole number of seconds.")
        try:
            return datetime.fromtimestamp(value, UTC)
        except (OverflowError, OSError, ValueError) as error:
            raise InvalidToken(f"The token's claim {name} is no point in time.") from error

    def audience(self) -> str:
        """The one audience. A token for several services could be replayed from one at another."""
        value = self._claims.get("aud")
        if isinstance(value, list) and len(value) == 1:
            value = value[0]
        if not isinstance(value, str):
            raise InvalidToken("The token does not name exactly one audience (claim aud).")
        return value

    def audiences(self) -> frozenset[str]:
        """All audiences, for issuers that name several services in one token."""
        value = self._claims.get("aud")
        values = value if isinstance(value, list) else [value]
        if not values or not all(isinstance(each, str) for each in values):
            raise InvalidToken("The token does not say whom it is for (claim aud).")
        return frozenset(values)

    def at(self, path: Sequence[str]) -> Any:
        """What stands at a path of names; None where nothing does."""
        value: Any = self._claims
        for name in path:
            value = value.get(name) if isinstance(value, dict) else None
        return value

    def kind(self) -> PrincipalKind:
        value = self._claims.get("kind", PrincipalKind.USER)
        if not isinstance(value, str) or value not in _TOKEN_KINDS:
            raise InvalidToken(f"The token's claim kind is not one of {', '.join(sorted(_TOKEN_KINDS))}.")
        return PrincipalKind(value)

    def actor(self) -> str | None:
        """Who acts on the subject's behalf (RFC 8693, 4.1): one actor, who acts for nobody in turn."""
        if "act" not in self._claims:
            return None
        value = self._claims["act"]
        if (
            not isinstance(value, dict)
            or value.keys() != {"sub"}
            or not isinstance(value["sub"], str)
            or not value["sub"]
        ):
            raise InvalidToken("The token's claim act is not exactly one actor.")
        return value["sub"]

    def confirmation(self) -> str | None:
        """The thumbprint of the holder's key (RFC 7800, 3.1; RFC 9449, 6.1)."""
        if "cnf" not in self._claims:
            return None
        value = self._claims["cnf"]
        if not isinstance(value, dict) or value.keys() != {"jkt"} or not isinstance(value["jkt"], str):
            raise InvalidToken("The token's claim cnf is not the thumbprint of one key.")
        return value["jkt"]

    def tenant_id(self) -> UUID | None:
        for name in _TENANT_LISTS:
            if name in self._claims:
                raise InvalidToken(f"The token names several tenants (claim {name}); it must name one in tenant_id.")
        if "tenant_id" not in self._claims:
            return None
        value = self._claims["tenant_id"]
        try:
            tenant_id = UUID(value)
        except (ValueError, AttributeError, TypeError) as error:
            raise _not_one_tenant() from error
        if str(tenant_id) != value.lower():  # UUID() takes other spellings, too
            raise _not_one_tenant()
        return tenant_id


def _not_one_tenant() -> InvalidToken:
    return InvalidToken("The token's claim tenant_id is not exactly one tenant id.")


def _refuse_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Of a claim that is there twice, two readers may take different ones."""
    claims = dict(pairs)
    if len(claims) != len(pairs):
        raise ValueError("a claim is there twice")
    return claims
