from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

MEBIBYTE = 1024 * 1024


class AppSettings(BaseSettings):
    """What only this service knows; databases, credentials and brokers are the library's to read."""

    model_config = SettingsConfigDict(env_prefix="APP_", extra="ignore")

    host: str = "127.0.0.1"
    port: int = 8004
    max_body_bytes: int = Field(default=MEBIBYTE, gt=0, description="of a request that is not an upload")
    max_file_bytes: int = Field(default=32 * MEBIBYTE, gt=0, description="of one attachment")
    export_days: int = Field(default=7, ge=1, le=3650, description="for which an export is kept")
    clock_wait_seconds: int = Field(default=30, gt=0, description="how long clock.advance waits for the directory")
