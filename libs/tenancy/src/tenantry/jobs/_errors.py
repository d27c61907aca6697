"""What may be wrong with a job.

TenantryError
├── NoTenant               400 tenant-missing     a job is queued without a tenant's session
├── PayloadTooLarge
│   └── JobTooLarge        413 payload-too-large  arguments that are data, where they should name data
└── InvalidRequest
    └── UnreadableJob      422 unreadable-job     arguments, or a task, that this code does not know
"""

from tenantry._errors import InvalidRequest, PayloadTooLarge


class JobTooLarge(PayloadTooLarge):
    """The arguments of a job have too many bytes."""


class UnreadableJob(InvalidRequest):
    """A queued job cannot be read by the code that is to run it."""

    type = "unreadable-job"
    title = "The job cannot be read"
