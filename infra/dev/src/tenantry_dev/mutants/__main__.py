"""The command: every mutant, or those of some threats, a line each."""

# ruff: noqa: T201 - a check on the command line

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tenantry_dev.mutants import MUTANTS
from tenantry_dev.mutants._trial import attempt, copied, servers

_NICE: Final = 10  # it takes minutes and nobody waits for it
_ROW: Final = "{:6} {:44.44} {:9} {:>5}  {}"


def main(wanted: Sequence[str]) -> int:
    """Prints the table; 0 where every mutant was noticed."""
    if unknown := set(wanted) - {mutant.threat for mutant in MUTANTS}:
        print(f"There is no mutant for {', '.join(sorted(unknown))}.", file=sys.stderr)
        return 2
    chosen = [mutant for mutant in MUTANTS if not wanted or mutant.threat in wanted]
    os.nice(_NICE)
    began, unnoticed = time.monotonic(), []
    print(_ROW.format("threat", "mutant", "", "s", "test"), flush=True)
    with copied(Path.cwd()) as copy, servers() as environment:
        for mutant in chosen:
            started = time.monotonic()
            outcome = attempt(mutant, copy, environment)
            verdict = "noticed" if outcome.noticed else "UNNOTICED"
            seconds = f"{time.monotonic() - started:.0f}"
            print(_ROW.format(mutant.threat, mutant.what, verdict, seconds, outcome.said), flush=True)
            if not outcome.noticed:
                unnoticed.append(f"{mutant.threat}: {mutant.what}: {outcome.said}")
    noticed, threats = len(chosen) - len(unnoticed), len({mutant.threat for mutant in chosen})
    print(f"{noticed} of {len(chosen)} mutants of {threats} threats noticed, in {time.monotonic() - began:.0f} s")
    for each in unnoticed:
        print(f"unnoticed: {each}")
    return 1 if unnoticed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
