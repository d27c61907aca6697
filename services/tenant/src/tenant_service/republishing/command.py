"""`tenantry tenants republish`."""

from collections import Counter
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from tenantry import SystemClock
from tenantry.cli import run_or_exit

# The service's own modules are imported when the command runs: every other command would wait for them.
# ruff: noqa: PLC0415

_DIFFERS = 1


def republish(
    *,
    check: Annotated[
        bool, typer.Option("--check", help="Only say what differs; exit with 1 where something does.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Rebuild the state topics from the database, where they differ.

    Tenants, configuration, credentials, tiers, stores, flags and signing keys, by TENANT_SYSTEM_DATABASE_URL and
    TENANTRY_KAFKA_BOOTSTRAP. What a topic lacks goes into the outbox, which a relay publishes; what is in no table gets
    a tombstone. It may run beside the service, be interrupted and be repeated. Exits with 1 where a topic is ahead of
    the database.
    """
    console = Console()
    differs = False

    async def run() -> None:
        nonlocal differs
        differs = await _republish(check=check, as_json=as_json, console=console)

    run_or_exit(run())
    if differs:
        raise typer.Exit(_DIFFERS)


async def _republish(*, check: bool, as_json: bool, console: Console) -> bool:
    from tenant_service.republishing.comparison import Difference
    from tenant_service.republishing.service import compare_topics, republish
    from tenant_service.runtime import open_databases
    from tenant_service.settings import SERVICE
    from tenant_service.transactions import Transactions
    from tenantry.database import DatabaseSettings
    from tenantry.events import KafkaSettings

    now = SystemClock().now()
    async with open_databases(DatabaseSettings.from_env(SERVICE)) as databases:
        transactions = Transactions(databases)
        findings = await compare_topics(transactions, KafkaSettings(), now=now)
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
