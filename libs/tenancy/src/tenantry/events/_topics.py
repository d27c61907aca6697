"""The topics of the backbone: one YAML file, read here and nowhere else."""

import asyncio
from collections.abc import Collection
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import msgspec
import structlog
import yaml
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code

from tenantry.events._settings import KafkaSettings

log = structlog.get_logger(__name__)

Profile = Literal["embedded", "production"]
Retention = Literal["erase", "pseudonymise", "statute", "transient"]
"""What becomes of a tenant's records when the tenant is purged: the words of `tenantry.database.Retention`."""

_DAY_MS = 24 * 60 * 60 * 1000
_RETRIES = 60
_RETRY_SECONDS = 0.5


class Topic(msgspec.Struct, frozen=True, kw_only=True):
    """A topic as declared. `key` says in words what the key of its records is; of `once`, no relay writes one twice."""

    name: str
    key: str
    partitions: int
    cleanup: Literal["compact", "compact+delete", "delete"]
    retention: Retention
    retention_days: int | None = None
    dead_letters: bool = False
    once: bool = False

    @property
    def dead_letter_topic(self) -> str | None:
        return dead_letter_topic(self.name) if self.dead_letters else None


class _ProfileConfig(msgspec.Struct, frozen=True):
    replication: int
    config: dict[str, Any]


class _DeadLetters(msgspec.Struct, frozen=True):
    partitions: int
    cleanup: Literal["delete"]
    retention: Retention
    retention_days: int


class Rights(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the user of a service may do with topics, and whose groups it may look at."""

    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    describes: tuple[str, ...] = ()
    watches: tuple[str, ...] = ()


class _Declaration(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    profiles: dict[Profile, _ProfileConfig]
    config: dict[str, Any]
    cleanup: dict[str, dict[str, Any]]
    dead_letters: _DeadLetters
    topics: list[Topic]
    principals: dict[str, Rights]


def dead_letter_topic(topic: str) -> str:
    return f"{topic}.dlq.v1"


def load_topics() -> list[Topic]:
    """Every declared topic, dead-letter topics included, in the order of the file."""
    declaration = _load()
    topics = []
    for topic in declaration.topics:
        topics.append(topic)
        if topic.dead_letters:
            topics.append(
                Topic(
                    name=dead_letter_topic(topic.name),
                    key=topic.key,
                    partitions=declaration.dead_letters.partitions,
                    cleanup=declaration.dead_letters.cleanup,
                    retention=declaration.dead_letters.retention,
                    retention_days=declaration.dead_letters.retention_days,
                )
            )
    return topics


def partitions_of(topic: str) -> int:
    """As many as the topic is declared with; `topic` is without prefix."""
    return next(declared.partitions for declared in _load().topics if declared.name == topic)


def load_principals() -> dict[str, Rights]:
    """The rights of every service's user, by service."""
    return _load().principals


async def create_topics(
    kafka: KafkaSettings | str,
    profile: Profile = "embedded",
    prefix: str | None = None,
    *,
    only: Collection[str] | None = None,
) -> list[str]:
    """Creates the declared topics that are missing and returns their names on the cluster; may be repeated.

    Topics that exist are left as they are. `only` restricts it to the named topics (without prefix). Waits up to 30
    seconds for a broker that is still starting; then the last `KafkaError` is raised.
    """
    settings = KafkaSettings(kafka_bootstrap=kafka) if isinstance(kafka, str) else kafka
    prefix = settings.topic_prefix if prefix is None else prefix
    declaration = _load()
    wanted = [
        _new_topic(topic, declaration, profile, prefix) for topic in load_topics() if only is None or topic.name in only
    ]
    for attempt in range(_RETRIES):
        try:
            return await _create(settings, wanted)
        except KafkaError as error:
            if attempt == _RETRIES - 1:
                raise
            log.info("kafka_not_ready", error=repr(error))
            await asyncio.sleep(_RETRY_SECONDS)
    raise AssertionError  # the last attempt returned or raised


async def _create(settings: KafkaSettings, wanted: list[NewTopic]) -> list[str]:
    admin = AIOKafkaAdminClient(**settings.client_options())
    try:
        await admin.start()
        existing = set(await admin.list_topics())
        missing = [topic for topic in wanted if topic.name not in existing]
        if not missing:
            return []
        response = await admin.create_topics(missing)
        created = []
        for name, code, message in response.topic_errors:
            error = for_code(code)
            if not code:
                created.append(name)
            elif error is not TopicAlreadyExistsError:  # a list that lags behind, or another process
                raise error(f"{name}: {message}")
        return created
    finally:
        await admin.close()


def _new_topic(topic: Topic, declaration: _Declaration, profile: Profile, prefix: str) -> NewTopic:
    chosen = declaration.profiles[profile]
    config = declaration.config | declaration.cleanup[topic.cleanup] | chosen.config
    if topic.retention_days is not None:
        config["retention.ms"] = topic.retention_days * _DAY_MS
    return NewTopic(
        name=prefix + topic.name,
        num_partitions=topic.partitions,
        replication_factor=chosen.replication,
        topic_configs={name: str(value) for name, value in config.items()},
    )


@cache
def _load() -> _Declaration:
    return msgspec.convert(yaml.safe_load(_text()), _Declaration)


def _text() -> str:
    packaged = resources.files("tenantry.events") / "topics.yaml"
    if packaged.is_file():
        return packaged.read_text()
    # An editable install has no packaged copy: the file is where it is written, in the repository.
    for parent in Path(__file__).resolve().parents:
        declared = parent / "infra" / "kafka" / "topics.yaml"
        if declared.is_file():
            return declared.read_text()
    raise FileNotFoundError("topics.yaml is neither packaged with tenantry.events nor in a repository above it")
