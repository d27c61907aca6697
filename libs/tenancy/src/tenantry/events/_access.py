"""Who may do what on the cluster: one user a service, with the rights that `topics.yaml` says and no others.

To be run by an administrator of the cluster. Kafka's own requests are used where aiokafka's client has no method.
"""

import hashlib
import secrets
from collections.abc import Collection, Iterator, Mapping, Sequence
from enum import IntEnum
from typing import Any, Final, NamedTuple

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import for_code
from aiokafka.protocol.admin import (
    CreateAclsRequest_v1,
    DeleteAclsRequest_v1,
    DescribeAclsRequest_v1,
)
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import CompactArray, CompactBytes, CompactString, Int8, Int16, Int32, Schema, TaggedFields

from tenantry.events._settings import KafkaSettings
from tenantry.events._topics import dead_letter_topic, load_principals, load_topics

# What Kafka's own tools use; PBKDF2 runs once a connection.
_ITERATIONS: Final = 8192
_SCRAM_SHA_512: Final = 2
_ANY_HOST: Final = "*"
_ALLOW: Final = 3
_ANY: Final = 1


class ResourceKind(IntEnum):
    """Values of Kafka's protocol."""

    TOPIC = 2
    GROUP = 3
    TRANSACTIONAL_ID = 5


class Pattern(IntEnum):
    LITERAL = 3
    PREFIXED = 4


class Right(IntEnum):
    READ = 3
    WRITE = 4
    DESCRIBE = 8


class Acl(NamedTuple):
    """A right of `user` to a resource on the cluster, from any host."""

    user: str
    kind: ResourceKind
    name: str
    pattern: Pattern
    right: Right


def acls_of(service: str, prefix: str = "") -> list[Acl]:
    """The rights of a service's user, whose name is the service's. Raises `KeyError` for one that is not declared."""
    return sorted(set(_acls_of(service, prefix)))


def _acls_of(service: str, prefix: str) -> Iterator[Acl]:
    rights = load_principals()[service]
    lettered = {topic.name for topic in load_topics() if topic.dead_letters}
    dead_letters = [dead_letter_topic(topic) for topic in rights.reads if topic in lettered]
    for topics, right in (
        (rights.reads, Right.READ),
        ((*rights.writes, *dead_letters), Right.WRITE),
        (rights.describes, Right.DESCRIBE),
    ):
        for topic in topics:
            yield Acl(service, ResourceKind.TOPIC, prefix + topic, Pattern.LITERAL, right)
    own = f"{prefix}{service}-"
    yield Acl(service, ResourceKind.GROUP, own, Pattern.PREFIXED, Right.READ)
    yield Acl(service, ResourceKind.TRANSACTIONAL_ID, own, Pattern.PREFIXED, Right.WRITE)
    for group in rights.watches:
        yield Acl(service, ResourceKind.GROUP, prefix + group, Pattern.LITERAL, Right.DESCRIBE)


async def put_users(kafka: KafkaSettings, passwords: Mapping[str, str]) -> None:
    """Make these users able to log in with SCRAM-SHA-512; their old passwords end. May be repeated.

    Only salted digests are sent. Raises `KafkaError`.
    """
    upsertions: list[tuple[object, ...]] = [
        (user, _SCRAM_SHA_512, _ITERATIONS, *_salted(password), {}) for user, password in passwords.items()
    ]
    answer = await _ask(kafka, _AlterUserScram([], upsertions, {}))
    for name, code, message, _ in answer.results:
        _check(code, f"user {name}: {message}")


async def grant_rights(kafka: KafkaSettings, services: Collection[str] | None = None) -> tuple[list[Acl], list[Acl]]:
    """Give the users of the services (of all) exactly their rights; returns what was added and what was taken away.

    May be repeated. Other users are left alone, and rights of these to names outside the topic prefix; without a prefix
    an installation has its users to itself.
    Raises `KafkaError`, and `KeyError` for a service that is not declared.
    """
    chosen = list(load_principals()) if services is None else services
    wanted = {acl for service in chosen for acl in acls_of(service, kafka.topic_prefix)}
    present = {acl for service in chosen for acl in await _present(kafka, service)}
    missing, surplus = sorted(wanted - present), sorted(present - wanted)
    if missing:
        answer = await _ask(kafka, CreateAclsRequest_v1([_row(acl) for acl in missing]))
        for code, message in answer.creation_responses:
            _check(code, message)
    if surplus:
        answer = await _ask(kafka, DeleteAclsRequest_v1([_row(acl) for acl in surplus]))
        for code, message, _ in answer.filter_responses:
            _check(code, message)
    return missing, surplus


async def _present(kafka: KafkaSettings, service: str) -> list[Acl]:
    """What the service's user may do below this installation's prefix."""
    answer = await _ask(kafka, DescribeAclsRequest_v1(_ANY, None, _ANY, f"User:{service}", None, _ANY, _ANY))
    _check(answer.error_code, answer.error_message)
    known = {kind.value for kind in ResourceKind}
    return [
        Acl(service, ResourceKind(kind), name, Pattern(pattern), Right(right))
        for kind, name, pattern, acls in answer.resources
        if kind in known and name.startswith(kafka.topic_prefix)
        for _, host, right, permission in acls
        if host == _ANY_HOST and permission == _ALLOW and right in set(Right)
    ]


def _row(acl: Acl) -> tuple[object, ...]:
    return (acl.kind, acl.name, acl.pattern, f"User:{acl.user}", _ANY_HOST, acl.right, _ALLOW)


def _salted(password: str) -> tuple[bytes, bytes]:
    """A fresh salt and the salted password (RFC 5802, 3: Hi)."""
    salt = secrets.token_bytes(32)
    return salt, hashlib.pbkdf2_hmac("sha512", password.encode(), salt, _ITERATIONS)


def _check(code: int, message: str | None) -> None:
    if code:
        raise for_code(code)(message or "")


async def _ask(kafka: KafkaSettings, struct: RequestStruct) -> Any:
    admin = AIOKafkaAdminClient(**kafka.client_options())
    try:
        await admin.start()
        return await admin._send_to_controller(_Prepared(struct))  # noqa: SLF001 - it has no method for these
    finally:
        await admin.close()


class _Prepared(Request[RequestStruct]):  # type: ignore[misc]
    """A request in one version, which every broker since Kafka 2.7 knows."""

    API_KEY = -1

    def __init__(self, struct: RequestStruct) -> None:
        self._struct = struct

    def build(self, request_struct_class: type[RequestStruct]) -> RequestStruct:
        del request_struct_class
        return self._struct

    def prepare(self, versions: Mapping[int, Sequence[int]]) -> RequestStruct:
        del versions
        return self._struct


class _AlterUserScramResponse(Response):  # type: ignore[misc]
    # AlterUserScramCredentials, version 0.
    API_KEY = 51
    API_VERSION = 0
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "results",
            CompactArray(
                ("user", CompactString("utf-8")),
                ("error_code", Int16),
                ("error_message", CompactString("utf-8")),
                ("tags", TaggedFields),
            ),
        ),
        ("tags", TaggedFields),
    )


class _AlterUserScram(RequestStruct):  # type: ignore[misc]
    API_KEY = 51
    API_VERSION = 0
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = _AlterUserScramResponse
    SCHEMA = Schema(
        (
            "deletions",
            CompactArray(("name", CompactString("utf-8")), ("mechanism", Int8), ("tags", TaggedFields)),
        ),
        (
            "upsertions",
            CompactArray(
                ("name", CompactString("utf-8")),
                ("mechanism", Int8),
                ("iterations", Int32),
                ("salt", CompactBytes),
                ("salted_password", CompactBytes),
                ("tags", TaggedFields),
            ),
        ),
        ("tags", TaggedFields),
    )
