"""The commands `tenantry up`, `demo`, `down`, `clean`, `bench` and `lock-jars`, which make calls.

Every `tenantry` process loads this module, the service processes too, so what a command needs is imported inside it.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

app = typer.Typer(help="The embedded system of this machine.")

Log = Annotated[Path | None, typer.Option(help="An access log in combined format, plain or gzip.")]
Llm = Annotated[Path | None, typer.Option(help="A CSV of TIMESTAMP, ContextTokens, GeneratedTokens, plain or gzip.")]


Sample = Annotated[bool, typer.Option(help="Onboard the sample tenants, replay the traces and invoice them.")]


@app.command()
def up(log: Log = None, llm: Llm = None, sample: Sample = True) -> None:
    """Start everything, replay traffic, stay up until Ctrl-C."""
    from tenantry_dev.run.up import run_up  # noqa: PLC0415

    _exit(run_up(log, llm, sample=sample))


@app.command()
def demo(log: Log = None, llm: Llm = None) -> None:
    """The same unattended, compared with the oracle.

    In a fresh state directory; exits with 0 if every invoice is equal, and stops everything.
    """
    from tenantry_dev.demo.run import run_demo  # noqa: PLC0415

    _exit(run_demo(log, llm))


@app.command()
def down() -> None:
    """Stop a running system from elsewhere."""
    from tenantry_dev.run.stopping import run_down  # noqa: PLC0415

    _exit(run_down())


@app.command()
def clean() -> None:
    """Stop a running system and remove its data."""
    from tenantry_dev.run.stopping import run_clean  # noqa: PLC0415

    _exit(run_clean())


@app.command()
def bench(names: Annotated[list[str] | None, typer.Argument(help="Which benches; all without.")] = None) -> None:
    """Measure, and write .tenantry/bench.json.

    On servers of its own, unless TENANTRY_POSTGRES_URL and TENANTRY_KAFKA_BOOTSTRAP name others.
    """
    from tenantry_dev.bench import run_bench  # noqa: PLC0415

    _exit(run_bench(names or []))


@app.command()
def lock_jars() -> None:
    """Resolve Kafka's jars anew and write their lock."""
    from tenantry_dev.stack.jars import lock_jars as resolve  # noqa: PLC0415

    typer.echo(f"{len(resolve())} jars locked")


def _exit(code: int) -> NoReturn:
    sys.stdout.flush()
    raise typer.Exit(code)
