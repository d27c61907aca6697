"""A task that is spawned works for exactly the tenant that it is given, whoever gives it."""

import asyncio
from contextvars import ContextVar

import pytest
import structlog

from tenantry import NoTenant, current_context, current_request_id, current_tenant_or_none, spawn, tenant_scope
from tenantry._context import Binding, _caller
from tenantry.identity import Principal, PrincipalKind

other = ContextVar("other", default="none")


async def seen():
    await asyncio.sleep(0)
    return current_tenant_or_none()


async def test_it_works_for_the_given_tenant_or_for_none_whatever_the_caller_works_for(a, b):
    assert await spawn(None, seen()) is None
    assert await spawn(a, seen()) is a
    with tenant_scope(a):
        assert await spawn(b, seen()) is b
        assert await spawn(None, seen()) is None
        assert await asyncio.create_task(seen()) is a  # what it stands in for


async def test_it_keeps_where_it_came_from_and_nothing_else(a):
    binding = Binding("req-1", None)
    binding.bind(Principal(subject="u", kind=PrincipalKind.USER, credential_id="t"), a)
    other.set("set")

    async def look():
        return current_request_id(), _caller.get(), other.get(), structlog.contextvars.get_contextvars()

    with structlog.contextvars.bound_contextvars(role="worker"):
        assert await spawn(a, look()) == ("req-1", None, "none", {"role": "worker"})
    binding.release()


async def test_a_tenant_in_a_task_does_not_come_back_to_its_starter(a):
    async def enter():
        with tenant_scope(a):
            await asyncio.sleep(0)

    await spawn(None, enter())
    assert current_tenant_or_none() is None


async def test_work_that_nobody_awaits_is_held_and_its_failure_is_logged(logs):
    async def fail():
        raise RuntimeError("nobody looks")

    task = spawn(None, fail(), name="doomed")
    await asyncio.wait([task])
    await asyncio.sleep(0)
    assert [(line["event"], line["task"]) for line in logs] == [("spawned_work_failed", "doomed")]
    cancelled = spawn(None, asyncio.sleep(60))
    cancelled.cancel()
    await asyncio.wait([cancelled])
    await asyncio.sleep(0)
    assert len(logs) == 1


def test_a_context_needs_a_tenant(a):
    with pytest.raises(NoTenant):
        current_context()
    binding = Binding("req-1", "00-1")
    binding.bind(Principal(subject="u", kind=PrincipalKind.USER, credential_id="t"), a)
    context = current_context()
    assert context.principal is not None
    assert (context.tenant, context.principal.subject, context.request_id, context.traceparent) == (
        a,
        "u",
        "req-1",
        "00-1",
    )
    binding.release()
    assert current_request_id() is None
