"""Export and purge of a tenant's data, driven by the data catalogue of each service.

The tenant service asks (`tenant.export`, `tenant.purge`), a service makes a task of it and answers when the task is
done: days later, after any number of kills, once. Export needs the extra `tenantry[export]`.
"""

from tenantry.offboarding._export import export_task_of
from tenantry.offboarding._handlers import EXPORT, PURGE, offboarding_handlers
from tenantry.offboarding._holdings import Holding
from tenantry.offboarding._plan import catalogue_digest
from tenantry.offboarding._purge import Erased
from tenantry.offboarding._settings import ExportNotConfigured, ExportSettings
from tenantry.offboarding._tasks import OFFBOARDING_TABLES, offboarding_tables
from tenantry.offboarding._worker import OffboardingWorker

__all__ = [
    "EXPORT",
    "OFFBOARDING_TABLES",
    "PURGE",
    "Erased",
    "ExportNotConfigured",
    "ExportSettings",
    "Holding",
    "OffboardingWorker",
    "catalogue_digest",
    "export_task_of",
    "offboarding_handlers",
    "offboarding_tables",
]
