"""Which source the directory has, from the environment. Needs the extra `tenantry[fastapi]`."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from tenantry._errors import StartupRefused
from tenantry._tenant import TenantStatus
from tenantry.directory._http import TenantEndpoint
from tenantry.directory._polled import PolledDirectory, TenantListing
from tenantry.directory._records import TenantFields
from tenantry.directory._sql import TenantQuery
from tenantry.directory._static import TenantFile

if TYPE_CHECKING:
    from tenantry._settings import TenancySettings
    from tenantry._sources import DirectorySource


class DirectorySettings(BaseSettings):
    """`TENANTRY_DIRECTORY` and what each source needs, with the prefix `TENANTRY_DIRECTORY_`."""

    model_config = SettingsConfigDict(
        env_prefix="TENANTRY_DIRECTORY_", extra="ignore", frozen=True, populate_by_name=True, hide_input_in_errors=True
    )

    source: Literal["kafka", "sql", "http", "static"] = Field(default="kafka", validation_alias="TENANTRY_DIRECTORY")
    poll_seconds: float = Field(default=5.0, gt=0, description="how often the source is asked")
    fields: dict[str, str] = Field(default_factory=dict, description="JSON: our name of a field -> the source's")
    statuses: dict[str, TenantStatus] = Field(default_factory=dict, description="JSON: the source's state -> ours")

    sql_url: SecretStr | None = Field(default=None, description="postgresql://user:password@host:5432/database")
    sql_query: str | None = Field(default=None, description="a SELECT whose columns are named as the fields are")
    sql_updated_at: str | None = Field(default=None, description="its column that grows with every change")
    sql_channel: str | None = Field(default=None, description="a channel that is notified after changes")
    sql_complete_seconds: float = Field(default=60.0, gt=0, description="how often everything is read all the same")

    http_url: str | None = Field(default=None, description="answers with a JSON list of tenants")
    http_authorization: SecretStr | None = Field(default=None, description="the whole Authorization header")
    http_items: str = Field(default="items", description="where an object has its list")

    file: Path | None = Field(default=None, description="a TOML or JSON file with `tenants`")

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        needed = {"kafka": (), "sql": ("sql_url", "sql_query"), "http": ("http_url",), "static": ("file",)}[self.source]
        missing = [f"TENANTRY_DIRECTORY_{name.upper()}" for name in needed if getattr(self, name) is None]
        if missing:
            raise ValueError(f"TENANTRY_DIRECTORY is {self.source} and not set: {', '.join(missing)}")
        known = set(TenantFields.__struct_fields__) - {"statuses"}
        if unknown := sorted(set(self.fields) - known):
            raise ValueError(f"TENANTRY_DIRECTORY_FIELDS has unknown fields: {', '.join(unknown)}")
        return self

    def listing(self) -> TenantListing:
        """What is asked for tenants; not for kafka, which is followed."""
        if self.source == "sql" and self.sql_url is not None and self.sql_query is not None:
            return TenantQuery(
                self.sql_url.get_secret_value(),
                self.sql_query,
                updated_at=self.sql_updated_at,
                channel=self.sql_channel,
                complete_seconds=self.sql_complete_seconds,
            )
        if self.source == "http" and self.http_url is not None:
            headers = {}
            if self.http_authorization is not None:
                headers["Authorization"] = self.http_authorization.get_secret_value()
            return TenantEndpoint(self.http_url, headers=headers, items=self.http_items)
        if self.source == "static" and self.file is not None:
            return TenantFile(self.file)
        raise StartupRefused(f"there is nothing to ask for tenants with TENANTRY_DIRECTORY={self.source}")


def directory_source(directory: DirectorySettings, tenancy: "TenancySettings") -> "DirectorySource":
    """The source that the settings name. Raises `StartupRefused` where it cannot be what the service needs.

    `kafka` needs the extra `tenantry[kafka]`.
    """
    if directory.source == "kafka":
        from tenantry.events import KafkaDirectory, KafkaSettings  # noqa: PLC0415 - the extra

        return KafkaDirectory(KafkaSettings())
    if tenancy.identity == "tenantry":
        raise StartupRefused(
            f"with TENANTRY_DIRECTORY={directory.source} nobody says which keys the tenant service signs with: "
            "set TENANTRY_IDENTITY=external and TENANTRY_TRUSTED_ISSUERS, or TENANTRY_DIRECTORY=kafka"
        )
    if directory.poll_seconds >= tenancy.max_staleness_seconds:
        raise StartupRefused("TENANTRY_DIRECTORY_POLL_SECONDS is not below TENANTRY_MAX_STALENESS_SECONDS")
    return PolledDirectory(
        directory.listing(),
        interval=directory.poll_seconds,
        fields=TenantFields(**directory.fields, statuses=directory.statuses),
    )
