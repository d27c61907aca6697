"""Jobs of tenants: queued in the transaction of the session that wants them, run in turns. Needs `tenantry[jobs]`.

jobs = Jobs()

@jobs.task("report")
async def write_report(job: Job, report_id: UUID) -> None:
    async with job.session() as session: ...            # of the tenant that queued it, and of no other

await jobs.defer(session, write_report, report_id)      # committed with the session, or not at all

await JobWorker(jobs, tenancy).run()                    # in a process of its own
"""

from typing import TYPE_CHECKING

from tenantry._exports import lazy_exports
from tenantry.jobs._tables import JOB_TABLES, job_tables

if TYPE_CHECKING:
    from procrastinate import RetryStrategy

    from tenantry.jobs._errors import JobTooLarge, UnreadableJob
    from tenantry.jobs._jobs import Jobs, JobState
    from tenantry.jobs._settings import JobSettings
    from tenantry.jobs._task import Job, Task
    from tenantry.jobs._worker import JobWorker

__all__ = [
    "JOB_TABLES",
    "Job",
    "JobSettings",
    "JobState",
    "JobTooLarge",
    "JobWorker",
    "Jobs",
    "RetryStrategy",
    "Task",
    "UnreadableJob",
    "job_tables",
]

# A service's models name the tables; only what queues and runs jobs needs procrastinate.
__getattr__ = lazy_exports(
    __name__,
    {
        "_errors": ("JobTooLarge", "UnreadableJob"),
        "_jobs": ("Jobs", "JobState"),
        "_settings": ("JobSettings",),
        "_task": ("Job", "RetryStrategy", "Task"),
        "_worker": ("JobWorker",),
    },
)
