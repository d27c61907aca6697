"""Where exports go."""

from pathlib import Path
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

from pydantic_settings import BaseSettings, SettingsConfigDict

from tenantry._errors import Conflict, StartupRefused

if TYPE_CHECKING:
    from obstore.store import ObjectStore


class ExportNotConfigured(Conflict):
    """There is no store that exports could go to."""

    type = "export-not-configured"
    title = "There is no store for exports"


class ExportSettings(BaseSettings):
    """`TENANTRY_EXPORT_URL`, the same for all services: `file:///var/lib/exports`, `s3://bucket/prefix`, and what else
    obstore knows. Credentials of a cloud come from the variables of that cloud.
    """

    model_config = SettingsConfigDict(env_prefix="TENANTRY_", extra="ignore", frozen=True)

    export_url: str | None = None

    @classmethod
    def from_env(cls) -> Self:
        """Raises pydantic's ValidationError."""
        return cls()

    def store(self) -> "ObjectStore | None":
        """The store; None where none is set. Raises `StartupRefused` for a URL that cannot be used."""
        if self.export_url is None:
            return None
        try:
            from obstore.exceptions import BaseError  # noqa: PLC0415 - the extra
            from obstore.store import LocalStore, from_url  # noqa: PLC0415
        except ImportError as error:
            raise StartupRefused("TENANTRY_EXPORT_URL needs the extra tenantry[export]") from error
        parts = urlsplit(self.export_url)
        try:
            if parts.scheme == "file":
                directory = Path(parts.path)
                directory.mkdir(mode=0o700, parents=True, exist_ok=True)
                return LocalStore(directory, automatic_cleanup=True)
            return from_url(self.export_url)
        except (BaseError, OSError, ValueError) as error:
            raise StartupRefused(f"TENANTRY_EXPORT_URL cannot be used: {type(error).__name__}") from error
