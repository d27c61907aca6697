"""The tenants whose events the worker has seen."""

from __future__ import annotations

from uuid import UUID

from tenantry import TenantDirectory


class KnownTenants(dict[str, bytes]):
    """Ids by the subject that events name them with; the directory is asked for one that is missing.

    So the first events of a tenant take the same short way as all others, also after a change of the directory, when
    all are asked for again.
    """

    def __init__(self, directory: TenantDirectory) -> None:
        super().__init__()
        self._directory = directory

    def __missing__(self, subject: str) -> bytes:
        """Raises KeyError for a tenant that is not known, and ValueError for what names none."""
        tenant_id = UUID(subject)
        if self._directory.get(tenant_id) is None:
            raise KeyError(subject)
        found = self[subject] = tenant_id.bytes
        return found
