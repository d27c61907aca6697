"""Events over Kafka: topics, the CloudEvents envelope, the outbox and its relay, consumers and local state.

Needs the extra `tenantry[kafka]`.
"""

from tenantry.events._access import Acl, acls_of, grant_rights, put_users
from tenantry.events._batches import Handle, Record, RepeatBatch
from tenantry.events._consumer import TransactionalConsumer
from tenantry.events._dead_letters import TooManyInvalidRecords
from tenantry.events._directory import KafkaDirectory
from tenantry.events._envelope import (
    Event,
    InvalidRecord,
    InvalidRecords,
    decode,
    encode,
    encode_data,
    format_time,
    version_of,
)
from tenantry.events._offsets import Fenced
from tenantry.events._outbox import LANES, NotRelayed, OutboxEvent, append_outbox, append_outbox_many, lane_of
from tenantry.events._place_handlers import PLACE_LANES, PROVISION_TENANT, RELEASE_TENANT, place_handlers, place_lane
from tenantry.events._relay import OutboxRelay, relay_stores
from tenantry.events._requests import (
    LATER,
    Ack,
    Handler,
    Lane,
    LaneRule,
    Later,
    NotYet,
    Request,
    RequestResponder,
    ack_event,
)
from tenantry.events._settings import KafkaSettings
from tenantry.events._state import StateReader
from tenantry.events._state_applied import STATE_APPLIED, state_applied
from tenantry.events._topics import (
    Rights,
    Topic,
    create_topics,
    dead_letter_topic,
    load_principals,
    load_topics,
    partitions_of,
)
from tenantry.events._usage import USAGE_EVENTS, USAGE_HEADERS, UsageEvent, encode_usage_event, partition_key
from tenantry.events._usage_producer import UsageProducer

__all__ = [
    "LANES",
    "LATER",
    "PLACE_LANES",
    "PROVISION_TENANT",
    "RELEASE_TENANT",
    "STATE_APPLIED",
    "USAGE_EVENTS",
    "USAGE_HEADERS",
    "Ack",
    "Acl",
    "Event",
    "Fenced",
    "Handle",
    "Handler",
    "InvalidRecord",
    "InvalidRecords",
    "KafkaDirectory",
    "KafkaSettings",
    "Lane",
    "LaneRule",
    "Later",
    "NotRelayed",
    "NotYet",
    "OutboxEvent",
    "OutboxRelay",
    "Record",
    "RepeatBatch",
    "Request",
    "RequestResponder",
    "Rights",
    "StateReader",
    "TooManyInvalidRecords",
    "Topic",
    "TransactionalConsumer",
    "UsageEvent",
    "UsageProducer",
    "ack_event",
    "acls_of",
    "append_outbox",
    "append_outbox_many",
    "create_topics",
    "dead_letter_topic",
    "decode",
    "encode",
    "encode_data",
    "encode_usage_event",
    "format_time",
    "grant_rights",
    "lane_of",
    "load_principals",
    "load_topics",
    "partition_key",
    "partitions_of",
    "place_handlers",
    "place_lane",
    "put_users",
    "relay_stores",
    "state_applied",
    "version_of",
]
