"""What `Tenancy` learns tenants from, and what more a source may know."""

from typing import Protocol, runtime_checkable

from tenantry._directory import TenantDirectory
from tenantry.config import ConfigStore
from tenantry.features import FlagStore
from tenantry.identity import CredentialStore, KeySet


class DirectorySource(Protocol):
    """What feeds the directory: `tenantry.directory.PolledDirectory`, or a `StateSource`."""

    @property
    def directory(self) -> TenantDirectory: ...

    @property
    def lag_seconds(self) -> float:
        """How old the local state may be; 0 for one that cannot be stale."""
        ...

    async def start(self) -> None:
        """Returns once everything that existed is known; may take for ever, and is cancelled at the end."""
        ...

    async def stop(self) -> None: ...


@runtime_checkable
class StateSource(DirectorySource, Protocol):
    """One that feeds the tenant service's keys and credentials as well: `tenantry.events.KafkaDirectory`, or a peer.

    With another one only trusted issuers and a company's own resolvers identify anybody.
    """

    @property
    def keys(self) -> KeySet: ...

    @property
    def credentials(self) -> CredentialStore: ...


@runtime_checkable
class ConfigSource(Protocol):
    """A source that feeds configuration and flags as well; with another one nothing is configured."""

    @property
    def config(self) -> ConfigStore: ...

    @property
    def flags(self) -> FlagStore: ...
