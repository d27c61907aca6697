"""What a service has been asked to do with a tenant's data, and how far it has come: two tables of the service."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from tenantry.database import Retention, RoleNames, SystemTable, system_table

Kind = Literal["export", "purge"]

_TABLES = (
    """
    CREATE TABLE system.offboarding_task (
        id uuid CONSTRAINT pk_offboarding_task PRIMARY KEY,
        tenant_id uuid NOT NULL,
        kind text NOT NULL,
        tenant jsonb NOT NULL,
        catalogue_digest text NOT NULL,
        state text NOT NULL,
        result jsonb,
        error text,
        created_at timestamptz NOT NULL,
        touched_at timestamptz NOT NULL,
        ended_at timestamptz
    )
    """,
    "CREATE INDEX ix_offboarding_task_running ON system.offboarding_task (touched_at) WHERE state = 'running'",
    """
    CREATE TABLE system.offboarding_request (
        request_id uuid CONSTRAINT pk_offboarding_request PRIMARY KEY,
        task_id uuid NOT NULL CONSTRAINT fk_offboarding_request_task_id_offboarding_task
            REFERENCES system.offboarding_task (id),
        answered boolean NOT NULL
    )
    """,
    "CREATE INDEX ix_offboarding_request_open ON system.offboarding_request (task_id) WHERE NOT answered",
    """
    CREATE TABLE system.offboarding_table (
        task_id uuid NOT NULL CONSTRAINT fk_offboarding_table_task_id_offboarding_task
            REFERENCES system.offboarding_task (id),
        position integer NOT NULL,
        label text NOT NULL,
        retention text NOT NULL,
        rows_before bigint NOT NULL,
        rows_after bigint,
        detail jsonb NOT NULL,
        CONSTRAINT pk_offboarding_table PRIMARY KEY (task_id, position)
    )
    """,
)


OFFBOARDING_TABLES = (
    SystemTable("offboarding_task", tenant_column="tenant_id", retention=Retention.STATUTE, exported=False),
    SystemTable("offboarding_request"),
    SystemTable("offboarding_table"),
)
"""For the data catalogue of a service that has them. They hold counts and digests, which prove what was done."""


def offboarding_tables(roles: RoleNames) -> list[str]:
    """The statements of a service's system migration that make the tables, to be executed one a call."""
    grants = (grant for table in OFFBOARDING_TABLES for grant in system_table(f"system.{table.name}", roles))
    return [*_TABLES, *grants]


@dataclass(frozen=True, slots=True)
class Task:
    """A task that is being worked on; `tenant` is the document as it was when it was asked for."""

    id: UUID
    tenant_id: UUID
    kind: Kind
    tenant: Mapping[str, Any]
    catalogue_digest: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class TableProgress:
    """A table of a task, or a place that is dropped as a whole; `rows_after` None: not done."""

    position: int
    label: str
    retention: str
    rows_before: int
    rows_after: int | None
    detail: Mapping[str, Any]


_ADD = text(
    """
    INSERT INTO system.offboarding_task
        (id, tenant_id, kind, tenant, catalogue_digest, state, created_at, touched_at)
    VALUES (:id, :tenant_id, :kind, CAST(:tenant AS jsonb), :digest, 'running', :now, :now)
    ON CONFLICT (id) DO NOTHING
    """
)
_ADD_REQUEST = text(
    """
    INSERT INTO system.offboarding_request (request_id, task_id, answered) VALUES (:request_id, :id, false)
    ON CONFLICT (request_id) DO UPDATE SET answered = false
    """
)
_RESULT = text("SELECT state, result, error FROM system.offboarding_task WHERE id = :id FOR UPDATE")
_CLAIM = text(
    """
    SELECT id, tenant_id, kind, tenant, catalogue_digest, created_at FROM system.offboarding_task
    WHERE state = 'running' AND touched_at <= :now
    ORDER BY touched_at LIMIT 1 FOR UPDATE SKIP LOCKED
    """
)
_TOUCH = text("UPDATE system.offboarding_task SET touched_at = :at, error = :error WHERE id = :id")
_FINISH = text(
    """
    UPDATE system.offboarding_task
    SET state = 'done', result = CAST(:result AS jsonb), tenant = '{}', error = NULL, ended_at = :now
    WHERE id = :id
    """
)
_UNANSWERED = text(
    """
    UPDATE system.offboarding_request SET answered = true WHERE task_id = :id AND NOT answered RETURNING request_id
    """
)
_PLAN = text(
    """
    INSERT INTO system.offboarding_table (task_id, position, label, retention, rows_before, detail)
    VALUES (:id, :position, :label, :retention, :rows_before, CAST(:detail AS jsonb))
    """
)
_PROGRESS = text(
    """
    SELECT position, label, retention, rows_before, rows_after, detail FROM system.offboarding_table
    WHERE task_id = :id ORDER BY position
    """
)
_DONE = text(
    """
    UPDATE system.offboarding_table SET rows_after = :rows_after, detail = detail || CAST(:detail AS jsonb)
    WHERE task_id = :id AND position = :position
    """
)


@dataclass(frozen=True, slots=True)
class Asked:
    """Where a request stands: the result of a task that is done, or None while it is not."""

    result: Mapping[str, Any] | None


async def ask(
    session: AsyncSession,
    *,
    task_id: UUID,
    request_id: UUID,
    kind: Kind,
    tenant_id: UUID,
    tenant: Mapping[str, Any],
    digest: str,
    now: datetime,
) -> Asked:
    """Make the task if there is none, and remember who waits for it. May be repeated; the caller commits."""
    await session.execute(
        _ADD,
        {
            "id": task_id,
            "tenant_id": tenant_id,
            "kind": kind,
            "tenant": json.dumps(tenant),
            "digest": digest,
            "now": now,
        },
    )
    known = (await session.execute(_RESULT, {"id": task_id})).one()
    if known.state == "done":
        return Asked(known.result)
    await session.execute(_ADD_REQUEST, {"request_id": request_id, "id": task_id})
    return Asked(None)


async def claim(session: AsyncSession, now: datetime) -> Task | None:
    """A task that is due, locked until the caller commits, the longest untouched first; None where none is."""
    row = (await session.execute(_CLAIM, {"now": now})).one_or_none()
    return None if row is None else Task(*row)


async def touch(session: AsyncSession, task: Task, at: datetime, error: str | None = None) -> None:
    """Let others go first: the task is looked at again from `at` on. `error` says why it has not moved."""
    await session.execute(_TOUCH, {"id": task.id, "at": at, "error": error})


async def store_plan(session: AsyncSession, task: Task, tables: Sequence[TableProgress]) -> None:
    """Remember which tables there are and how many rows of the tenant they have."""
    await session.execute(
        _PLAN,
        [
            {
                "id": task.id,
                "position": table.position,
                "label": table.label,
                "retention": table.retention,
                "rows_before": table.rows_before,
                "detail": json.dumps(dict(table.detail)),
            }
            for table in tables
        ],
    )


async def progress(session: AsyncSession, task: Task) -> list[TableProgress]:
    """The tables of the task in the order of work; empty before the plan is made."""
    return [TableProgress(*row) for row in await session.execute(_PROGRESS, {"id": task.id})]


async def set_rows_after(
    session: AsyncSession,
    task: Task,
    table: TableProgress,
    rows_after: int | None,
    detail: Mapping[str, Any] | None = None,
) -> None:
    """A table is done with this many rows left; None: it is not done after all."""
    await session.execute(
        _DONE,
        {
            "id": task.id,
            "position": table.position,
            "rows_after": rows_after,
            "detail": json.dumps(dict(detail or {})),
        },
    )


async def finish(session: AsyncSession, task: Task, result: Mapping[str, Any], now: datetime) -> None:
    """The task is done.

    The tenant's document goes: what is left of a purge says how many rows there were, and not whose name they had.
    """
    await session.execute(_FINISH, {"id": task.id, "result": json.dumps(result), "now": now})


async def answered(session: AsyncSession, task: Task) -> Sequence[UUID]:
    """The requests that wait for the task; they are taken as answered from here on."""
    return (await session.scalars(_UNANSWERED, {"id": task.id})).all()
