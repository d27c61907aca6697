"""Looks at a PostgreSQL database, of any application, for ways between its tenants. Needs `tenantry[doctor]`."""

from typing import TYPE_CHECKING

from tenantry._exports import lazy_exports
from tenantry.doctor._classify import Classification, TableClass
from tenantry.doctor._errors import DoctorFailed
from tenantry.doctor._finding import Finding
from tenantry.doctor._rules import RULES, Grade, Rule

if TYPE_CHECKING:
    from tenantry.doctor._examine import Acceptance, Options, Report, examine

__all__ = [
    "RULES",
    "Acceptance",
    "Classification",
    "DoctorFailed",
    "Finding",
    "Grade",
    "Options",
    "Report",
    "Rule",
    "TableClass",
    "examine",
]

# The driver and what uses it: `tenantry doctor --help` and a list of the rules need neither.
__getattr__ = lazy_exports(__name__, {"_examine": ("Acceptance", "Options", "Report", "examine")})
