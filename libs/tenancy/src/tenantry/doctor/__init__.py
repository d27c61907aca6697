"""Looks at a PostgreSQL database, of any application, for ways between its tenants. Needs `tenantry[doctor]`."""

from tenantry.doctor._classify import Classification, TableClass
from tenantry.doctor._errors import DoctorFailed
from tenantry.doctor._examine import Acceptance, Options, Report, examine
from tenantry.doctor._finding import Finding
from tenantry.doctor._rules import RULES, Grade, Rule

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
