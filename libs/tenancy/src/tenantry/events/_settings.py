"""Where Kafka is and how to log in to it."""

import ssl
from typing import Any, Final, Literal

from pydantic import Field, SecretStr, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

_METADATA_MS: Final = 15_000


class KafkaSettings(BaseSettings):
    """Connection and naming, from the environment (`TENANTRY_KAFKA_BOOTSTRAP`, `TENANTRY_TOPIC_PREFIX`, …).

    The prefix stands before every topic, consumer group and transactional id, so that several installations can share
    a cluster and prefixed ACLs can keep them apart. The deployment stands behind groups and transactional ids alone: a
    service that runs once in each region, with a database in each, reads everything in each.
    """

    model_config = SettingsConfigDict(env_prefix="TENANTRY_", frozen=True)

    kafka_bootstrap: str = "127.0.0.1:9092"
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "SCRAM-SHA-512"
    kafka_sasl_username: str | None = None
    kafka_sasl_password: SecretStr | None = None
    kafka_ssl_ca_file: str | None = None
    topic_prefix: str = ""
    deployment: str = Field(default="", pattern=r"^[a-z0-9-]{0,40}$")

    @field_validator("kafka_sasl_username", "kafka_sasl_password")
    @classmethod
    def _whole_login(cls, value: str | SecretStr | None, info: ValidationInfo) -> str | SecretStr | None:
        """Without one half a client would try, and fail, for ever."""
        protocol = str(info.data.get("kafka_security_protocol", ""))
        if not value and protocol.startswith("SASL"):
            name = f"TENANTRY_{info.field_name}".upper()
            raise ValueError(f"{name} is not set, and TENANTRY_KAFKA_SECURITY_PROTOCOL is {protocol}")
        return value

    def topic(self, name: str) -> str:
        """The topic's name on the cluster."""
        return self.topic_prefix + name

    def group(self, name: str) -> str:
        """The consumer group's name on the cluster, which is also its name in `consumer_offset`."""
        return self._of_deployment(name)

    def transactional_id(self, name: str) -> str:
        """What fences an earlier producer of the same name."""
        return self._of_deployment(name)

    def _of_deployment(self, name: str) -> str:
        return f"{self.topic_prefix}{name}.{self.deployment}" if self.deployment else self.topic_prefix + name

    def client_options(self) -> dict[str, Any]:
        """Keyword arguments that every aiokafka client takes."""
        options: dict[str, Any] = {
            "bootstrap_servers": self.kafka_bootstrap,
            "security_protocol": self.kafka_security_protocol,
            # How long a client that came before its topic, or before the topic's new partitions, does not see them.
            "metadata_max_age_ms": _METADATA_MS,
        }
        if self.kafka_security_protocol.startswith("SASL"):
            options["sasl_mechanism"] = self.kafka_sasl_mechanism
            options["sasl_plain_username"] = self.kafka_sasl_username
            options["sasl_plain_password"] = (
                self.kafka_sasl_password.get_secret_value() if self.kafka_sasl_password else None
            )
        if self.kafka_security_protocol.endswith("SSL"):
            options["ssl_context"] = ssl.create_default_context(cafile=self.kafka_ssl_ca_file)
        return options
