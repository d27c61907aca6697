"""The current tenant in threads that were not started for it."""

from collections.abc import Callable
from contextvars import copy_context
from typing import ParamSpec, TypeVar

from tenantry._context import current_tenant

P = ParamSpec("P")
R = TypeVar("R")


def in_tenant_context(function: Callable[P, R]) -> Callable[P, R]:
    """`function`, to be called by any thread, for the tenant of whoever asks for it now.

    For `concurrent.futures`, whose threads know no tenant; `asyncio.to_thread` and the threads of FastAPI's own
    routes do this by themselves. Raises `NoTenant` at once where none is set. What the function sets stays its own.
    """
    current_tenant()
    context = copy_context()

    def call(*arguments: P.args, **options: P.kwargs) -> R:
        # A copy for every call: a context cannot be entered twice at a time.
        return context.copy().run(function, *arguments, **options)

    return call
