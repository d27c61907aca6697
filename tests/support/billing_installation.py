"""A billing service with everything around it: topics of its own, and small stand-ins for tenant and usage service."""

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
from aiokafka import AIOKafkaProducer
from processes import SERVE, free_port
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from billing_service.runtime import Runtime
from billing_service.settings import BillingSettings
from tenantry import TenancySettings, Tenant, uuid7
from tenantry.cli import serve_http
from tenantry.events import KafkaSettings, create_topics, load_topics
from tenantry.identity import Credential, new_api_key, new_session_secret, secret_hash
from tenantry.testing import ServiceDatabase, eventually

ROLLUPS = "usage.rollups.v1"


@dataclass
class Installation:
    database: ServiceDatabase
    kafka: KafkaSettings
    producer: AIOKafkaProducer
    neighbours_port: int = field(default_factory=free_port)
    partitions: int = 0
    cuts: int = 0

    @classmethod
    @contextlib.asynccontextmanager
    async def start(cls, database: ServiceDatabase, bootstrap: str, prefix: str) -> AsyncIterator["Installation"]:
        kafka = KafkaSettings(kafka_bootstrap=bootstrap, topic_prefix=prefix)
        await create_topics(kafka)
        producer = AIOKafkaProducer(**kafka.client_options(), acks="all", enable_idempotence=True)
        await producer.start()
        installation = cls(database, kafka, producer)
        installation.partitions = next(topic.partitions for topic in load_topics() if topic.name == ROLLUPS)
        serving = asyncio.create_task(
            serve_http(installation.neighbours(), host="127.0.0.1", port=installation.neighbours_port)
        )
        try:
            yield installation
        finally:
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)
            await producer.stop()

    @property
    def neighbours_url(self) -> str:
        return f"http://127.0.0.1:{self.neighbours_port}"

    def neighbours(self) -> Starlette:
        """The token endpoint of the tenant service and the cuts of the usage service."""

        async def token(_: Request) -> JSONResponse:
            return JSONResponse({"access_token": "service", "expires_in": 600})

        async def cut(_: Request) -> JSONResponse:
            cut_id = uuid7()
            self.cuts += 1
            await self.publish_cut(cut_id)
            return JSONResponse({"id": str(cut_id), "state": "waiting"}, 202)

        return Starlette(
            routes=[Route("/oauth/token", token, methods=["POST"]), Route("/v1/cuts", cut, methods=["POST"])]
        )

    def runtime(self) -> Runtime:
        return Runtime.of(
            BillingSettings(grace_seconds=3600),
            TenancySettings(issuer="http://tenant.test", tenant_url="http://tenant.test"),
            self.kafka,
            self.database.settings(),
        )

    def environment(self) -> dict[str, str]:
        return (
            {name: value for name, value in os.environ.items() if not name.startswith(("TENANTRY_", "BILLING_"))}
            | self.database.environment()
            | {
                "TENANTRY_SERVICES": f"usage={self.neighbours_url}",
                "BILLING_RUN_CHUNK": "5",
                "TENANTRY_ISSUER": "http://tenant.test",
                "TENANTRY_TENANT_URL": self.neighbours_url,
                "TENANTRY_CLIENT_ID": "billing",
                "TENANTRY_CLIENT_SECRET": "only-for-tests",
                "TENANTRY_KAFKA_BOOTSTRAP": self.kafka.kafka_bootstrap,
                "TENANTRY_TOPIC_PREFIX": self.kafka.topic_prefix,
            }
        )

    def start_role(self, role: str, log: Path) -> "subprocess.Popen[bytes]":
        """A process of its own, whose output goes to `log`."""
        with log.open("ab") as output:
            return subprocess.Popen(
                [*SERVE, role],
                env=self.environment(),
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    async def publish_tenants(self, *tenants: Tenant) -> None:
        for tenant in tenants:
            await self._send("tenant.state.v1", str(tenant.id), msgspec.json.encode(tenant))

    async def publish_rollups(self, rollups: Iterable[dict[str, Any]]) -> None:
        sending = [
            await self.producer.send(
                self.kafka.topic(ROLLUPS),
                key=f"{each['tenant_id']}|{each['meter']}@1|hour|{each['window_start']}|{each['group_hash']}".encode(),
                value=msgspec.json.encode(each),
            )
            for each in rollups
        ]
        await asyncio.gather(*sending)

    async def publish_cut(self, cut_id: UUID) -> None:
        for partition in range(self.partitions):
            value = {"cut_id": str(cut_id), "offsets": {}, "partition": partition, "partitions": self.partitions}
            await self.producer.send_and_wait(
                self.kafka.topic(ROLLUPS),
                key=f"cut|{cut_id}".encode(),
                value=msgspec.json.encode(value),
                headers=[("type", b"cut")],
                partition=partition,
            )

    async def api_key(self, *scopes: str, tenant: Tenant | None = None) -> str:
        return await self._credential(new_api_key(), "api_key", scopes, tenant)

    async def session(self, *scopes: str) -> tuple[str, str]:
        """The id and the cookie value of a session."""
        secret = await self._credential(new_session_secret(), "session", scopes, None)
        return secret_hash(secret), secret

    async def end_session(self, session_id: str) -> None:
        await self._send("tenant.credentials.v1", session_id, None)

    async def _credential(self, secret: str, kind: Any, scopes: Iterable[str], tenant: Tenant | None) -> str:
        credential = Credential(
            id=secret_hash(secret),
            kind=kind,
            hash=secret_hash(secret),
            tenant_id=tenant.id if tenant else None,
            subject=f"{kind} of a test",
            scopes=frozenset(scopes),
        )
        await self._send("tenant.credentials.v1", credential.id, msgspec.json.encode(credential))
        return secret

    async def _send(self, topic: str, key: str, value: bytes | None) -> None:
        await self.producer.send_and_wait(self.kafka.topic(topic), key=key.encode(), value=value)


async def settled(runtime: Runtime) -> None:
    """Until the process knows everything that was published before."""
    await eventually(lambda: runtime.source.ready, within=60)
    await runtime.freshen()


def kill(process: "subprocess.Popen[bytes]") -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()
