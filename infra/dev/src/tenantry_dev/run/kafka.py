"""The users of the embedded Kafka: one a service, with the rights of `infra/kafka/topics.yaml`, and the operator."""

from __future__ import annotations

import asyncio
import time
from typing import Final, Literal, TypedDict

from pydantic import SecretStr

from tenantry.events import KafkaSettings, create_topics, grant_rights, put_users
from tenantry_dev.home import Secrets
from tenantry_dev.stack import StackError
from tenantry_dev.stack.kafka import can_log_in

OPERATOR: Final = "operator"
MECHANISM: Final = "SCRAM-SHA-512"
_VISIBLE_SECONDS: Final = 30.0


class Login(TypedDict):
    """How to log in to the embedded Kafka; the names are those of Kafka's clients."""

    security_protocol: Literal["SASL_PLAINTEXT"]
    sasl_mechanism: Literal["SCRAM-SHA-512"]
    username: str
    password: str


def login(kept: Secrets, user: str) -> Login:
    """How a service, or the operator, logs in."""
    return {
        "security_protocol": "SASL_PLAINTEXT",
        "sasl_mechanism": MECHANISM,
        "username": user,
        "password": kept[f"kafka_{user}"],
    }


def login_environment(kept: Secrets, user: str) -> dict[str, str]:
    """The same as the settings of the library."""
    known = login(kept, user)
    return {
        "TENANTRY_KAFKA_SECURITY_PROTOCOL": known["security_protocol"],
        "TENANTRY_KAFKA_SASL_MECHANISM": known["sasl_mechanism"],
        "TENANTRY_KAFKA_SASL_USERNAME": known["username"],
        "TENANTRY_KAFKA_SASL_PASSWORD": known["password"],
    }


async def prepare_kafka(administrator: KafkaSettings, kept: Secrets, services: tuple[str, ...]) -> None:
    """Make topics, users and rights, and return when the broker has taken them in. May be repeated.

    Raises StackError when it does not, and KafkaError.
    """
    await create_topics(administrator)
    users = (*services, OPERATOR)
    await put_users(administrator, {user: kept[f"kafka_{user}"] for user in users})
    # The broker answers before its own log of metadata has reached its authorizer and its authenticator.
    deadline = time.monotonic() + _VISIBLE_SECONDS
    while await grant_rights(administrator, services) != ([], []):
        await _pause(deadline)
    for user in users:
        known = administrator.model_copy(
            update={
                "kafka_sasl_mechanism": MECHANISM,
                "kafka_sasl_username": user,
                "kafka_sasl_password": SecretStr(kept[f"kafka_{user}"]),
            }
        )
        while not await can_log_in(known):
            await _pause(deadline)


async def _pause(deadline: float) -> None:
    if time.monotonic() > deadline:
        raise StackError("Kafka does not take in its users. Its log says more.")
    await asyncio.sleep(0.1)
