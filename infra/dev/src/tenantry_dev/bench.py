"""`tenantry bench`: the repository's benches, on servers that nothing else uses."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from tenantry_dev.run.terminal import run_guarded
from tenantry_dev.stack import EmbeddedKafka, EmbeddedPostgres, StackError

_SCRIPT = Path("tests/bench/run.py")
_POSTGRES = {"shared_buffers": "1GB", "effective_cache_size": "4GB"}
"""As a server has that does little else: the key of a day of ten million events fits in."""


def run_bench(names: Sequence[str]) -> int:
    """Exit code of the benches. TENANTRY_POSTGRES_URL and TENANTRY_KAFKA_BOOTSTRAP name other servers."""
    console = Console(stderr=True)

    def bench() -> int:
        if not _SCRIPT.exists():
            raise StackError(f"The benches are run from the root of the repository; there is no {_SCRIPT} here.")
        with _servers() as environment:
            done = subprocess.run([sys.executable, _SCRIPT, *names], env=os.environ | environment, check=False)  # noqa: S603
        return done.returncode

    return run_guarded(console, bench)


@contextmanager
def _servers() -> Iterator[dict[str, str]]:
    postgres, kafka = os.environ.get("TENANTRY_POSTGRES_URL"), os.environ.get("TENANTRY_KAFKA_BOOTSTRAP")
    if postgres and kafka:
        yield {}
        return
    with (
        tempfile.TemporaryDirectory(prefix="tenantry-bench-") as directory,
        EmbeddedPostgres(directory, settings=_POSTGRES) as own_postgres,
        EmbeddedKafka(directory) as own_kafka,
    ):
        yield {
            "TENANTRY_POSTGRES_URL": postgres or own_postgres.url,
            "TENANTRY_KAFKA_BOOTSTRAP": kafka or own_kafka.bootstrap,
        }
