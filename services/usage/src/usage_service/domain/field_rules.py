"""What becomes of a field of an event's data before anything is stored: dropped, or a hash or a token in its place.

A hash is HMAC-SHA256 under a key of the tenant, which is derived from a secret of the deployment: whoever reads the
events cannot try out addresses or names, and the same person in two tenants has two hashes. Within a tenant equal
values stay equal, so that they are counted and grouped as before, for as long as the secret is the same.

A token is random. It stands for its value because a vault says so, and for nothing once the vault has forgotten it.
"""

from __future__ import annotations

import hmac
from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping
from copy import copy
from decimal import Decimal
from enum import StrEnum
from typing import Final

from usage_service.domain.identity import canonical_json
from usage_service.domain.jsonpath import Segment, member, parse_path
from usage_service.domain.quantities import canonical_number, value_text

ALL_TYPES: Final = "*"
HASH_PREFIX: Final = "hash:"
TOKEN_PREFIX: Final = "token:"  # noqa: S105 (what it begins with is no secret)

_HASH_BYTES: Final = 16
_PURPOSE: Final = b"usage event field\0"


class Treatment(StrEnum):
    DROP = "drop"
    HASH = "hash"
    TOKENISE = "tokenise"


Rules = tuple[tuple[tuple[Segment, ...], Treatment], ...]
Tokens = Callable[[str, str], str]
"""The token of a tenant's value, which is given as its text."""


def _no_tokens(tenant: str, text: str) -> str:
    raise LookupError(f"{tenant} has no vault here for a value of {len(text)} characters")


class FieldRules:
    """The rules of all event types; those of `ALL_TYPES` hold beside a type's own, which come first."""

    def __init__(self, rules: Mapping[str, Mapping[str, Treatment]], key: bytes) -> None:
        """`rules` are treatments by event type and path. Raises InvalidPath."""
        self._key = key
        self._tokens: Tokens = _no_tokens
        self.tokenises = any(Treatment.TOKENISE in paths.values() for paths in rules.values())
        self._of_others = _compile(rules.get(ALL_TYPES, {}))
        self._by_type = {name: _compile({**rules.get(ALL_TYPES, {}), **paths}) for name, paths in rules.items()}

    def with_tokens(self, tokens: Tokens) -> FieldRules:
        """The same rules, with tokens from there."""
        bound = copy(self)
        bound._tokens = tokens  # noqa: SLF001 (of the same class)
        return bound

    def apply(self, event_type: str, tenant: str, data: object) -> None:
        """Treats the decoded `data` of an event in place; what is missing or null stays so."""
        for path, treatment in self._by_type.get(event_type, self._of_others):
            holder = data
            for segment in path[:-1]:
                holder = member(holder, segment)
            last = path[-1]
            value = member(holder, last)
            if value is None:
                continue
            if treatment is Treatment.HASH:
                holder[last] = self._hash(tenant, value)  # type: ignore[index]  # it has the member, so it is a container
            elif treatment is Treatment.TOKENISE:
                holder[last] = self._tokens(tenant, value_text(_canonical(value)))  # type: ignore[index]  # as above
            elif isinstance(holder, dict):
                del holder[last]
            else:
                holder[last] = None  # type: ignore[index]  # a list, whose other members keep their places

    def _hash(self, tenant: str, value: object) -> str:
        key = hmac.digest(self._key, _PURPOSE + tenant.encode(), "sha256")
        digest = hmac.digest(key, canonical_json(_canonical(value)).encode(), "sha256")[:_HASH_BYTES]
        return HASH_PREFIX + urlsafe_b64encode(digest).decode().rstrip("=")


def _compile(rules: Mapping[str, Treatment]) -> Rules:
    return tuple((parse_path(path), treatment) for path, treatment in rules.items())


def _canonical(value: object) -> object:
    """One spelling of equal numbers."""
    return canonical_number(str(value)) if isinstance(value, Decimal) else value
