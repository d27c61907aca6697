"""Names that were given up: for a time, nobody else gets them.

Links, cookies, DNS records and mails still carry a name for long after its tenant has left. Whoever took it over at
once would get what was meant for the former tenant.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from tenantry import Conflict


class NameKind(StrEnum):
    SLUG = "slug"
    DOMAIN = "domain"


class NameQuarantined(Conflict):
    """The name was another tenant's until a short while ago."""

    type = "name-quarantined"
    title = "The name cannot be taken yet"

    def __init__(self) -> None:
        super().__init__("Another tenant has given this name up only lately")


@dataclass(frozen=True, slots=True)
class Quarantine:
    """A name that was `tenant_id`'s and is for nobody else until `until`."""

    tenant_id: UUID
    until: datetime


def check_takeable(quarantine: Quarantine | None, *, by: UUID, now: datetime) -> None:
    """Raises `NameQuarantined` where the name is held back from `by`. A tenant may take back what was its own."""
    if quarantine is not None and quarantine.tenant_id != by and now < quarantine.until:
        raise NameQuarantined
