"""The embedded stack: PostgreSQL and Kafka from packages, for development, the demo and the tests."""

from tenantry_dev.stack.errors import StackError
from tenantry_dev.stack.kafka import EmbeddedKafka
from tenantry_dev.stack.postgres import EmbeddedPostgres

__all__ = ["EmbeddedKafka", "EmbeddedPostgres", "StackError"]
