"""The queue's tables: procrastinate's own, in the schema `jobs`, with a tenant in every row.

The tenant is a column that PostgreSQL works out of the envelope, so it cannot be left out, whoever writes the row, and
the policy on it is the one of every table with rows of tenants. Procrastinate's functions get a search path of their
own, because a tenant's session has another one; its triggers note what happens to a job as the owner, so that a
service needs no right on the notes.
"""

from importlib import resources
from typing import Final

from tenantry.database import Retention, RoleNames, SystemTable, system_table, tenant_table
from tenantry.database._names import quote

SCHEMA: Final = "jobs"

JOB_TABLES: Final = (
    SystemTable("jobs.procrastinate_jobs", tenant_column="tenant_id", retention=Retention.ERASE),
    # They go with their jobs and say nothing of a tenant but through them.
    SystemTable("jobs.procrastinate_events"),
    SystemTable("jobs.procrastinate_periodic_defers"),
    SystemTable("jobs.procrastinate_workers"),
)
"""For the data catalogue of a service that has jobs."""

_JOBS: Final = "jobs.procrastinate_jobs"
_DEFER: Final = "jobs.procrastinate_defer_jobs_v1(jobs.procrastinate_job_to_defer_v1[])"
_WRITTEN: Final = "queue_name, task_name, priority, lock, queueing_lock, args, scheduled_at"

# The whole of it is one statement, as drivers with prepared statements want it. The markers of the quotes are ours.
_INSTALL: Final = """
DO $install$
DECLARE
    before text := current_setting('search_path');
BEGIN
    PERFORM set_config('search_path', 'jobs', true);
    EXECUTE $schema${schema}$schema$;
    PERFORM set_config('search_path', before, true);
END
$install$
"""

_CLOSE: Final = """
DO $close$
DECLARE
    found record;
BEGIN
    FOR found IN
        SELECT p.oid::regprocedure AS name, p.prorettype = 'trigger'::regtype AS is_trigger
          FROM pg_proc AS p WHERE p.pronamespace = 'jobs'::regnamespace
    LOOP
        EXECUTE format('ALTER FUNCTION %s SET search_path = jobs, pg_temp', found.name);
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', found.name);
        IF found.is_trigger THEN
            EXECUTE format('ALTER FUNCTION %s SECURITY DEFINER', found.name);
        ELSE
            EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO {system}', found.name);
        END IF;
    END LOOP;
END
$close$
"""

_OWN: Final = (
    """
    ALTER TABLE jobs.procrastinate_jobs
        ADD COLUMN tenant_id uuid NOT NULL GENERATED ALWAYS AS ((args ->> 'tenant_id')::uuid) STORED,
        ADD COLUMN created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        ADD COLUMN error_type text,
        ADD COLUMN error_text text,
        ADD COLUMN failed_at timestamptz
    """,
    # Locks are names that tasks choose: one tenant's must neither hold nor betray another's.
    "DROP INDEX jobs.procrastinate_jobs_queueing_lock_idx_v1, jobs.procrastinate_jobs_lock_idx_v1",
    """
    CREATE UNIQUE INDEX procrastinate_jobs_queueing_lock_idx_v1 ON jobs.procrastinate_jobs (tenant_id, queueing_lock)
        WHERE status = 'todo'
    """,
    """
    CREATE UNIQUE INDEX procrastinate_jobs_lock_idx_v1 ON jobs.procrastinate_jobs (tenant_id, lock)
        WHERE status = 'doing'
    """,
    # Whose turn it is: the first ready job of each tenant, one probe a tenant, however many wait behind it.
    """
    CREATE INDEX procrastinate_jobs_ready ON jobs.procrastinate_jobs (tenant_id, priority DESC, id)
        WHERE status = 'todo' AND scheduled_at IS NULL
    """,
    "CREATE INDEX procrastinate_jobs_later ON jobs.procrastinate_jobs (scheduled_at) WHERE status = 'todo'",
    "CREATE INDEX procrastinate_jobs_doing ON jobs.procrastinate_jobs (id) WHERE status = 'doing'",
    """
    CREATE INDEX procrastinate_jobs_ended ON jobs.procrastinate_jobs (COALESCE(failed_at, created_at))
        WHERE status IN ('failed', 'cancelled', 'aborted')
    """,
    "CREATE INDEX procrastinate_jobs_tenant ON jobs.procrastinate_jobs (tenant_id)",
)


def job_tables(roles: RoleNames) -> list[str]:
    """The statements of a service's system migration that make the queue, to be executed one a call, in order.

    They make the schema `jobs` and what the installed procrastinate wants in it. Needs the extra `tenantry[jobs]`.
    """
    schema = (resources.files("procrastinate.sql") / "schema.sql").read_text(encoding="utf-8")
    service, system, backup = quote(roles.service), quote(roles.system), quote(roles.backup)
    return [
        f"CREATE SCHEMA {SCHEMA}",
        f"GRANT USAGE ON SCHEMA {SCHEMA} TO {service}, {system}, {backup}",
        _INSTALL.replace("{schema}", schema),
        _CLOSE.replace("{system}", system),
        *_OWN,
        # A tenant's session queues jobs, in its own name, and sees how they stand; it changes none.
        *tenant_table(_JOBS, roles, service=("SELECT",)),
        f"GRANT INSERT ({_WRITTEN}) ON {_JOBS} TO {service}",
        f"GRANT EXECUTE ON FUNCTION {_DEFER} TO {service}",
        f"GRANT USAGE ON SEQUENCE jobs.procrastinate_jobs_id_seq TO {service}, {system}",
        f"GRANT SELECT ON ALL SEQUENCES IN SCHEMA {SCHEMA} TO {backup}",
        *(grant for table in JOB_TABLES[1:] for grant in system_table(table.name, roles)),
    ]
