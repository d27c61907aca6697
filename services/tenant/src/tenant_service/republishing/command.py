"""`tenantry tenants republish`."""

import asyncio
from collections import Counter
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from tenantry import StartupRefused, SystemClock
from tenantry.cli import run_or_exit

# The service's own modules are imported when the command runs: every other command would wait for them.
# ruff: noqa: PLC0415

_DIFFERS = 1
_WAIT_SECONDS = 300.0


def republish(
    *,
    check: Annotated[
        bool, typer.Option("--check", help="Only say what differs; exit with 1 where something does.")
    ] = False,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds to wait for Kafka at most.")] = _WAIT_SECONDS,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Rebuild the state topics from the database, where they differ.

    Tenants, configuration, credentials, tiers, stores, flags and signing keys, with what the tenant service has in its
    environment: TENANT_DATABASE_URL, TENANT_SYSTEM_DATABASE_URL, TENANTRY_KAFKA_BOOTSTRAP, where Kafka wants a login
    TENANTRY_KAFKA_SECURITY_PROTOCOL, TENANTRY_KAFKA_SASL_USERNAME and TENANTRY_KAFKA_SASL_PASSWORD, and, where it has
    one, TENANTRY_TOPIC_PREFIX. What a topic lacks goes into the outbox, which a relay publishes; what is in no table
    gets a tombstone. It may run beside the service, be interrupted and be repeated. Exits with 1 where a topic is ahead
    of the database.
    """
    from pydantic import ValidationError

    from tenantry.cli import CommandFailed

    console = Console()
    differs = False
    failure: CommandFailed | None = None

    async def run() -> None:
        nonlocal differs, failure
        try:
            differs = await _republish(check=check, timeout=timeout, as_json=as_json, console=console)
        except (StartupRefused, ValidationError) as refused:
            reasons = [each["msg"] for each in refused.errors()] if isinstance(refused, ValidationError) else [refused]
            failure = CommandFailed("; ".join(map(str, reasons)), "set it as in the environment of the tenant service")
        except _KafkaSilent as silent:
            failure = CommandFailed(str(silent), "check TENANTRY_KAFKA_BOOTSTRAP and the TENANTRY_KAFKA_SASL_… login")

    run_or_exit(run())
    if failure is not None:
        raise failure
    if differs:
        raise typer.Exit(_DIFFERS)


class _KafkaSilent(Exception):
    """The topics could not be read in time."""


async def _republish(*, check: bool, timeout: float, as_json: bool, console: Console) -> bool:  # noqa: ASYNC109 - said by whoever runs it
    from tenant_service.republishing.comparison import Difference
    from tenant_service.republishing.service import compare_topics, republish
    from tenant_service.runtime import open_databases
    from tenant_service.settings import SERVICE
    from tenant_service.transactions import Transactions
    from tenantry.database import DatabaseSettings
    from tenantry.events import KafkaSettings

    now, kafka = SystemClock().now(), KafkaSettings()
    async with open_databases(DatabaseSettings.from_env(SERVICE)) as databases:
        transactions = Transactions(databases)
        try:
            async with asyncio.timeout(timeout) as limit:
                findings = await compare_topics(transactions, kafka, now=now)
        except TimeoutError:
            if not limit.expired():
                raise
            raise _KafkaSilent(
                f"the topics at {kafka.kafka_bootstrap} were not read in {timeout:.0f} seconds"
            ) from None
        published = 0
        if not check:
            with Progress(console=console, disable=as_json, transient=True) as progress:
                task = progress.add_task("publishing", total=len(findings))
                published = await republish(
                    transactions, findings, now=now, progress=lambda done: progress.advance(task, done)
                )
    ahead = [finding for finding in findings if finding.difference is Difference.AHEAD]
    counts = Counter((finding.topic, str(finding.difference)) for finding in findings)
    if as_json:
        differences = [{"topic": topic, "difference": kind, "keys": keys} for (topic, kind), keys in counts.items()]
        console.print_json(
            data={"published": published, "differences": differences, "ahead": [finding.key for finding in ahead]}
        )
        return bool(findings if check else ahead)
    if counts:
        table = Table("topic", "difference", "keys")
        for (topic, kind), keys in sorted(counts.items()):
            table.add_row(topic, kind, str(keys))
        console.print(table)
    console.print(f"{len(findings)} differences, {published} records put into the outbox", highlight=False)
    for finding in ahead:
        console.print(
            f"{finding.topic} {finding.key}: version {finding.topic_version} is published and the database has "
            f"{finding.table_version}. Was it set back?",
            highlight=False,
        )
    return bool(findings if check else ahead)
