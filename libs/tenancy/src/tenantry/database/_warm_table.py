"""The ledger of places that are made ahead of tenants: `system.warm_place` of a service's database, in each store.

A place is in the ledger before it is made and leaves it in the transaction that renames it, so a process that dies
leaves nothing that is used twice and nothing that nobody knows of. `state` is

- `making`: being made or brought to the head by whoever holds the refiller's lock, or left behind by one that died;
- `ready`: empty, at `revision`, with no connection open; the only one that is handed over;
- `dropping`: not wanted any more.
"""

from enum import StrEnum
from typing import Final

from tenantry.database._names import RoleNames
from tenantry.database._policies import system_table

WARM_TABLE: Final = "system.warm_place"

_CREATE: Final = f"""
    CREATE TABLE {WARM_TABLE} (
        name text NOT NULL CONSTRAINT pk_warm_place PRIMARY KEY,
        isolation text NOT NULL CONSTRAINT ck_warm_place_isolation CHECK (isolation IN ('schema', 'database')),
        state text NOT NULL CONSTRAINT ck_warm_place_state CHECK (state IN ('making', 'ready', 'dropping')),
        revision text,
        created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        CONSTRAINT ck_warm_place_revision CHECK (state <> 'ready' OR revision IS NOT NULL)
    )
"""


class PlaceState(StrEnum):
    """What may be done with a place of the ledger."""

    MAKING = "making"
    READY = "ready"
    DROPPING = "dropping"


def warm_place_table(roles: RoleNames) -> list[str]:
    """The statements of a service's system migration that makes the ledger; to be executed one a call.

    Only the provisioner, a member of the owner, writes to it.
    """
    return [_CREATE, *system_table(WARM_TABLE, roles, system=("SELECT",))]
