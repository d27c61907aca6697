"""The environment of every service process, and the clients that may ask the tenant service for tokens."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import secrets
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tenantry.database import ServiceUrls
from tenantry_dev.home import Home, Secrets, write_json
from tenantry_dev.run.kafka import OPERATOR as KAFKA_OPERATOR
from tenantry_dev.run.kafka import login, login_environment
from tenantry_dev.run.supervisor import Program
from tenantry_dev.stack.ports import HOST

SERVICES = ("tenant", "usage", "billing", "app")
DEFAULT_PORTS = {"tenant": 8001, "usage": 8002, "billing": 8003, "app": 8004}
ROLES = {
    "tenant": ("tenant-api", "tenant-worker", "tenant-relay"),
    "usage": ("usage-api", "usage-meter", "usage-relay"),
    "billing": ("billing-api", "billing-worker", "billing-relay"),
    "app": ("app-api", "app-worker", "app-jobs", "app-relay"),
}
OPERATOR = "operator"
SAMPLE_TRAFFIC = "sample-traffic"
GRACE_SECONDS = 3600

# Started after the servers (rank 1) and stopped before them; relays go last so that they can empty the outboxes.
_RANKS = {"relay": 10, "worker": 20, "meter": 20, "jobs": 20, "api": 30}


@dataclass(frozen=True)
class Addresses:
    """Where everything listens. `ports` are of the services; an embedded Kafka has users of ours."""

    ports: Mapping[str, int]
    kafka: str
    kafka_is_embedded: bool

    def url(self, service: str) -> str:
        return f"http://{HOST}:{self.ports[service]}"

    @property
    def urls(self) -> dict[str, str]:
        return {service: self.url(service) for service in SERVICES}


def write_bootstrap(home: Home, kept: Secrets) -> Path:
    """The file from which the tenant service knows its first clients: digests, never secrets."""
    clients = [
        _client(kept, OPERATOR, "platform"),
        _client(kept, SAMPLE_TRAFFIC, "service"),
        *(_client(kept, service_client(service), "service") for service in SERVICES),
    ]
    path = home.directory / "bootstrap.json"
    draft = path.with_suffix(".new")
    draft.touch(mode=0o600)
    draft.write_text(json.dumps(clients, indent=2), encoding="utf-8")
    draft.replace(path)
    return path


def service_client(service: str) -> str:
    return f"{service}-service"


def write_operator_file(home: Home, kept: Secrets, addresses: Addresses, postgres: str) -> None:
    """`operator.json`: how a person, or a script, gets a token of the operator and finds the services."""
    document = {
        "client_id": OPERATOR,
        "client_secret": kept[OPERATOR],
        "urls": addresses.urls,
        "postgres": postgres,
        "kafka": addresses.kafka,
        "kafka_login": login(kept, KAFKA_OPERATOR) if addresses.kafka_is_embedded else None,
    }
    write_json(home.operator_file, document)


def programs(home: Home, kept: Secrets, addresses: Addresses, databases: Mapping[str, ServiceUrls]) -> list[Program]:
    """The thirteen role processes."""
    command = str(Path(sysconfig.get_path("scripts")) / "tenantry")
    return [
        Program(
            name=role,
            command=[command, "serve", "--role", role],
            rank=_RANKS[role.rsplit("-", 1)[1]],
            environment=_environment(home, kept, addresses, databases[service], service),
        )
        for service in SERVICES
        for role in ROLES[service]
    ]


def _client(kept: Secrets, client_id: str, scope: str) -> dict[str, object]:
    return {
        "client_id": client_id,
        "secret_sha256": hashlib.sha256(kept[client_id].encode()).hexdigest(),
        "scopes": [scope],
        "audiences": list(SERVICES),
    }


def _environment(home: Home, kept: Secrets, addresses: Addresses, urls: ServiceUrls, service: str) -> dict[str, str]:
    prefix = service.upper()
    environment = {
        "TENANTRY_ISSUER": addresses.url("tenant"),
        "TENANTRY_TENANT_URL": addresses.url("tenant"),
        "TENANTRY_SERVICES": ",".join(f"{name}={url}" for name, url in addresses.urls.items()),
        "TENANTRY_KAFKA_BOOTSTRAP": addresses.kafka,
        "TENANTRY_CLIENT_ID": service_client(service),
        "TENANTRY_CLIENT_SECRET": kept[service_client(service)],
        "TENANTRY_STATE_DIR": str(home.directory / "spool"),
        "TENANTRY_EXPORT_URL": (home.directory / "exports").as_uri(),
        # Lines for people, unless somebody wants them for a machine; what else is set is inherited.
        "TENANTRY_LOG_JSON": os.environ.get("TENANTRY_LOG_JSON", "false"),
        f"{prefix}_HOST": HOST,
        f"{prefix}_PORT": str(addresses.ports[service]),
        f"{prefix}_DATABASE_URL": urls.service,
        f"{prefix}_SYSTEM_DATABASE_URL": urls.system,
        f"{prefix}_MIGRATOR_DATABASE_URL": urls.migrator,
    }
    if addresses.kafka_is_embedded:
        environment |= login_environment(kept, service)
    if urls.provisioner is not None:
        environment[f"{prefix}_PROVISIONER_DATABASE_URL"] = urls.provisioner
    return environment | _OWN.get(service, _nothing)(home, kept, addresses)


def _tenant(home: Home, kept: Secrets, addresses: Addresses) -> dict[str, str]:
    return {
        "TENANT_BASE_URL": addresses.url("tenant"),
        "TENANT_MASTER_KEY": kept.make("master_key", lambda: base64.b64encode(secrets.token_bytes(32)).decode()),
        "TENANT_BOOTSTRAP_FILE": str(home.directory / "bootstrap.json"),
        "TENANT_TEST_CLOCKS_ENABLED": "true",
        "TENANT_SIGN_IN_ORIGINS": json.dumps([addresses.url("billing"), addresses.url("app")]),
        "TENANT_REQUIRED_SERVICES": '["app"]',
        "TENANT_CLOCK_SERVICES": '["usage", "billing", "app"]',
        "TENANT_OFFBOARDING_SERVICES": '["usage", "billing", "app"]',
        "TENANT_STATE_SERVICES": '["usage", "billing", "app"]',
    }


def _billing(home: Home, kept: Secrets, addresses: Addresses) -> dict[str, str]:
    del home, kept, addresses
    return {"BILLING_GRACE_SECONDS": str(GRACE_SECONDS)}


def _app(home: Home, kept: Secrets, addresses: Addresses) -> dict[str, str]:
    del home, kept, addresses
    # Who has no quota here has no limit, and nobody is refused because Kafka is away.
    return {
        "TENANTRY_ENTITLEMENTS": "kafka",
        "TENANTRY_ENTITLEMENTS_UNKNOWN": "allow",
        "TENANTRY_ENTITLEMENTS_STALE": "allow",
    }


def _nothing(home: Home, kept: Secrets, addresses: Addresses) -> dict[str, str]:
    del home, kept, addresses
    return {}


_OWN = {"tenant": _tenant, "billing": _billing, "app": _app}
