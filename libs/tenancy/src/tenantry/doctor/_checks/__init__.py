"""The checks: each takes the subject and gives findings, without IO."""

from collections.abc import Callable, Iterator
from typing import Final

from tenantry.doctor._checks._citus import check_citus
from tenantry.doctor._checks._indexes import check_indexes
from tenantry.doctor._checks._keys import check_keys
from tenantry.doctor._checks._objects import check_objects
from tenantry.doctor._checks._policies import check_policies
from tenantry.doctor._checks._roles import check_roles
from tenantry.doctor._checks._tables import check_tables
from tenantry.doctor._checks._unclear import check_unclear
from tenantry.doctor._finding import Finding
from tenantry.doctor._subject import Subject

CHECKS: Final[tuple[Callable[[Subject], Iterator[Finding]], ...]] = (
    check_roles,
    check_tables,
    check_policies,
    check_objects,
    check_keys,
    check_indexes,
    check_citus,
    check_unclear,
)
