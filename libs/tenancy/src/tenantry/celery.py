"""Tenants in Celery: a task works for the tenant that published it, or not at all. Needs the extra `tenantry[celery]`.

    app = carry_tenants(Celery("product"), tenancy.directory)

    @app.task
    def rebuild_index() -> None: ...       # current_tenant() is the publisher's

    @app.task(tenantless=True)
    def rotate_logs() -> None: ...         # says that it works for nobody

The tenant's id travels in a header of the message. The worker looks it up and admits it anew, so a task of a tenant
that has been suspended meanwhile does not run.
"""

from typing import Any, ClassVar, Final, TypeVar

from celery import Celery, Task, current_task
from celery.signals import before_task_publish

from tenantry._admission import admit
from tenantry._context import current_tenant_or_none, tenant_scope
from tenantry._directory import TenantDirectory
from tenantry._errors import NoTenant, TenantNotFound, Unavailable
from tenantry._tenant import Operation, Tenant

__all__ = ["TENANT_HEADER", "TenantTask", "carry_tenants"]

TENANT_HEADER: Final = "tenantry_tenant"

C = TypeVar("C", bound=Celery)


class TenantTask(Task):  # type: ignore[misc]  # Celery ships no types
    """The base of tasks. Raises `NoTenant` for a message without a tenant, and whatever `admit` raises.

    A task that is refused only for now (the tenant is being moved, the directory has just started) is tried again as
    Celery retries any task. Called directly, or eagerly, it works for the caller's tenant.
    """

    abstract = True
    tenantless: ClassVar[bool] = False
    """Whether the task works for no tenant; what it does is then the system's own affair."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        if self.tenantless:
            return super().__call__(*arguments, **options)
        try:
            tenant = self._admitted()
        except Unavailable as error:
            if self.request.called_directly or self.request.is_eager:
                raise
            raise self.retry(exc=error, countdown=error.retry_after) from error
        with tenant_scope(tenant):
            return super().__call__(*arguments, **options)

    def _admitted(self) -> Tenant:
        directory: TenantDirectory = self.app.tenant_directory
        reference = self.request.get(TENANT_HEADER)
        if not reference:
            # In a worker nobody has set a tenant: one that is set here was set by the caller of this very call.
            caller = current_tenant_or_none()
            if caller is None:
                raise NoTenant(f"The task {self.name} was published without a tenant.")
            reference = str(caller.id)
        if not directory.ready:
            raise Unavailable("The tenants are not known yet; the worker has just started.")
        tenant = directory.resolve(reference)
        if tenant is None or directory.is_purged(tenant.id):
            raise TenantNotFound("There is no such tenant.")
        admit(tenant, Operation.JOBS)
        return tenant


def carry_tenants(app: C, directory: TenantDirectory) -> C:
    """Has the tasks of `app` carry and restore their tenant. To be called before the first task is declared."""
    app.task_cls = TenantTask
    app.tenant_directory = directory
    before_task_publish.connect(_write_header, weak=False, dispatch_uid="tenantry")
    return app


def _write_header(headers: dict[str, Any] | None = None, **_: Any) -> None:
    if headers is None:
        return
    tenant = current_tenant_or_none()
    if tenant is not None:
        headers[TENANT_HEADER] = str(tenant.id)
    elif current_task and (reference := current_task.request.get(TENANT_HEADER)) is not None:
        # What follows a task, such as the next of a chain, is published when the task's own scope has ended.
        headers[TENANT_HEADER] = reference
