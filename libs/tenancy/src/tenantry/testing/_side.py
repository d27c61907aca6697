"""What the product under test tells a sweep of each of the two tenants."""

import random
import string
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

RowHashes = Mapping[str, str]
"""A hash of a tenant's rows by table."""


@dataclass(frozen=True, slots=True)
class Side:
    """One of two tenants with equal natural keys, as a caller of the product.

    ``words`` stand in every text of the tenant that is not a natural key, and nowhere else; they have six letters or
    more. ``names`` are what selects it (id, slug, external id). ``plant`` makes new rows, one of each kind, and returns
    their ids by the names that requests have for them (``{"note_id": …}``, which is found for ``note_ids`` and
    ``notes[].id`` too; ``"POST /x body id"`` names one position of one operation). ``rows`` hashes everything that the
    tenant has, by table.
    """

    headers: Mapping[str, str]
    words: Collection[str]
    names: Collection[str]
    plant: Callable[[], Awaitable[Mapping[str, str]]]
    rows: Callable[[], Awaitable[RowHashes]]


@dataclass(frozen=True, slots=True)
class Example:
    """What the document does not say of a valid request for one operation.

    ``body`` is a JSON value, bytes, or a function of the ids that makes one. ``status`` is what a tenant's own request
    is answered where that is no success, ``silent`` the reason why a tenant's own answer shows none of its words.
    """

    path: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Any = None
    status: int | None = None
    silent: str | None = None

    def body_for(self, ids: Mapping[str, str]) -> Any:
        return self.body(ids) if callable(self.body) else self.body


def unknown_like(value: str) -> str:
    """The id of nothing, of the same form as ``value``."""
    if value.isdecimal():
        return str(random.randrange(1_000_000_000, 2_000_000_000))  # noqa: S311 - nobody is to be kept from guessing it
    try:
        UUID(value)
    except ValueError:
        return "".join(_another(letter) for letter in value)
    return str(uuid4())


def _another(letter: str) -> str:
    for letters in (string.digits, string.ascii_lowercase, string.ascii_uppercase):
        if letter in letters:
            return random.choice(letters)  # noqa: S311 - as above
    return letter
