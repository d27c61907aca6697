"""The command: every mutant, or those of some threats, a line each."""

# ruff: noqa: T201 - a check on the command line

import os
import signal
import sys
import time
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tenantry_dev.mutants import MUTANTS, Mutant
from tenantry_dev.mutants._trial import Outcome, attempt, copied, failing, servers

_NICE: Final = 5  # it takes minutes and nobody waits for it
_ROW: Final = "{:6} {:44.44} {:>5}  {}"


def main(arguments: Sequence[str]) -> int:
    """Prints the table; 0 where every mutant was noticed."""
    parser = ArgumentParser(prog="make mutants", description="Breaks the product on purpose: the tests must notice.")
    known = list(dict.fromkeys(mutant.threat for mutant in MUTANTS))
    parser.add_argument("threats", nargs="*", metavar="T1", help="only the mutants of these threats")
    parser.add_argument("--committed", action="store_true", help="of the last commit, whatever is edited meanwhile")
    asked = parser.parse_args(arguments)
    if unknown := [threat for threat in asked.threats if threat not in known]:
        parser.error(f"there is no mutant for {', '.join(unknown)}")
    chosen = [mutant for mutant in MUTANTS if not asked.threats or mutant.threat in asked.threats]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # or the copy would stay
    os.nice(_NICE)
    began, outcomes = time.monotonic(), dict[Mutant, Outcome]()
    print(_ROW.format("threat", "mutant", "s", "noticed by"), flush=True)
    with copied(Path.cwd(), committed=asked.committed) as copy, servers() as environment:
        for mutant in chosen:
            started = time.monotonic()
            outcome = outcomes[mutant] = attempt(mutant, copy, environment)
            said = outcome.said if outcome.test else f"-- {outcome.said}"
            print(_ROW.format(mutant.threat, mutant.what, f"{time.monotonic() - started:.0f}", said), flush=True)
        # A test that fails anyway has noticed nothing.
        fail_anyway = failing({outcome.test for outcome in outcomes.values() if outcome.test}, copy, environment)
    unnoticed = {
        mutant: outcome.said if outcome.test is None else f"{outcome.said} fails without it, too"
        for mutant, outcome in outcomes.items()
        if outcome.test is None or outcome.test in fail_anyway
    }
    noticed, threats = len(chosen) - len(unnoticed), len({mutant.threat for mutant in chosen})
    print(f"{noticed} of {len(chosen)} mutants of {threats} threats noticed, in {time.monotonic() - began:.0f} s")
    for mutant, reason in unnoticed.items():
        print(f"unnoticed: {mutant.threat}, {mutant.what}: {reason}")
    return 1 if unnoticed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
