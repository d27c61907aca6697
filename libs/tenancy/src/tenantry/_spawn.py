"""Tasks that outlive, or have nothing to do with, the request that starts them."""

import asyncio
import contextvars
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

import structlog

from tenantry._context import _current, _request_id
from tenantry._tenant import Tenant

log = structlog.get_logger(__name__)

Result = TypeVar("Result")

# The loop itself holds tasks weakly: one that nobody else holds may be collected while it runs.
_running: Final[set[asyncio.Task[Any]]] = set()


def spawn(tenant: Tenant | None, work: Coroutine[Any, Any, Result], *, name: str | None = None) -> asyncio.Task[Result]:
    """A task that runs `work` for `tenant`, or for none, whatever the caller works for.

    `asyncio.create_task` copies the caller's context: a loop that a request starts would go on as that request's
    tenant. This one begins with an empty context; of the caller's it keeps the request id and the fields of log lines,
    so that one finds where the work came from. A failure that nobody awaits is logged.
    """
    context = contextvars.Context()
    if tenant is not None:
        context.run(_current.set, tenant)
    context.run(_request_id.set, _request_id.get())
    context.run(structlog.contextvars.bind_contextvars, **structlog.contextvars.get_contextvars())
    task = asyncio.get_running_loop().create_task(work, name=name, context=context)
    _running.add(task)
    task.add_done_callback(_finished)
    return task


def _finished(task: asyncio.Task[Any]) -> None:
    _running.discard(task)
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("spawned_work_failed", task=task.get_name(), exc_info=error)
