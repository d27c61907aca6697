"""Runs benches and merges their rows into `.tenantry/bench.json`.

`python tests/bench/run.py [bench name ...]`; without names, all of them. The name `usage` stands for those of the usage
service, whose rows also go to `.tenantry/bench/usage.json` and into a chart beside it. BENCH_SHORT=1 takes minutes for
them and shows that they run, not how fast the service is. The servers are those of TENANTRY_POSTGRES_URL and
TENANTRY_KAFKA_BOOTSTRAP.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import traceback
from pathlib import Path

import uvloop

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from chart import chart  # noqa: E402 (benches are scripts: their folder is the import path)
from report import Row, Servers, merge  # noqa: E402

RESULTS = HERE.parents[1] / ".tenantry"
USAGE = ("ingest", "ingest_overdrive", "meter", "meter_growth", "end_to_end", "queries")
SHORT = {
    "BENCH_RUNS": "1",
    "BENCH_SECONDS": "2",
    "BENCH_OVERDRIVE_SECONDS": "6",
    "BENCH_EVENTS": "100000",
    "BENCH_GROWTH_RUNS": "1",
    "BENCH_STORED": "300000",
    "BENCH_TENANTS": "5000",
    "BENCH_REBUILD_SECONDS": "10",
    "BENCH_END_TO_END_SECONDS": "10",
    "BENCH_LATE_SECONDS": "5",
    "BENCH_QUERY_EVENTS": "310000",
    "BENCH_QUERY_REQUESTS": "50",
}
"""Sizes that BENCH_SHORT sets where the environment does not."""


def main() -> int:
    available = sorted(path.stem.removeprefix("bench_") for path in HERE.glob("bench_*.py"))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", choices=[[], "usage", *available], help="which benches; all without")
    chosen = parser.parse_args().names or available
    with_chart = "usage" in chosen
    chosen = [each for name in chosen for each in (USAGE if name == "usage" else (name,))]
    if os.environ.get("BENCH_SHORT"):
        os.environ.update({name: value for name, value in SHORT.items() if name not in os.environ})
    servers = Servers(postgres=os.environ["TENANTRY_POSTGRES_URL"], kafka=os.environ["TENANTRY_KAFKA_BOOTSTRAP"])
    failed = False
    for name in chosen:
        try:
            rows: list[Row] = uvloop.run(importlib.import_module(f"bench_{name}").run(servers))
        except Exception:  # noqa: BLE001 (one broken bench must not hide the figures of the others)
            traceback.print_exc()
            failed = True
            continue
        merge(RESULTS / "bench.json", rows)
        if with_chart:
            known = merge(RESULTS / "bench" / "usage.json", rows)
            (RESULTS / "bench" / "usage.svg").write_text(chart(known, "Usage service"), encoding="utf-8")
        for line in rows:
            print(_line(line), flush=True)  # noqa: T201 (its output is what it is for)
    return int(failed)


def _line(line: Row) -> str:
    value = "-" if line["value"] is None else f"{line['value']:,.1f}"
    limit = "" if line["limit"] is None else f"  limit {line['limit']:,.1f} ({line['ratio']:.0%})"
    detail = "  ".join(f"{key}={value}" for key, value in line["detail"].items())
    return f"{line['name']:<26} {value:>12} {line['unit']:<10}{limit}  {detail}"


if __name__ == "__main__":
    sys.exit(main())
