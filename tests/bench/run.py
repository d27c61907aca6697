"""Runs the benches and merges their rows into `.tenantry/bench.json`.

`python tests/bench/run.py [bench name ...]`; without names, all of them. The servers are those of
TENANTRY_POSTGRES_URL and TENANTRY_KAFKA_BOOTSTRAP.
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

from report import Row, Servers, merge  # noqa: E402 (benches are scripts: their folder is the import path)

RESULT = HERE.parents[1] / ".tenantry" / "bench.json"


def main() -> int:
    available = sorted(path.stem.removeprefix("bench_") for path in HERE.glob("bench_*.py"))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", choices=[[], *available], help="which benches; all without")
    chosen = parser.parse_args().names or available
    servers = Servers(postgres=os.environ["TENANTRY_POSTGRES_URL"], kafka=os.environ["TENANTRY_KAFKA_BOOTSTRAP"])
    failed = False
    for name in chosen:
        try:
            rows: list[Row] = uvloop.run(importlib.import_module(f"bench_{name}").run(servers))
        except Exception:  # noqa: BLE001 (one broken bench must not hide the figures of the others)
            traceback.print_exc()
            failed = True
            continue
        merge(RESULT, rows)
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
