from pathlib import Path

import pytest

from tenantry_dev.mutants import MUTANTS, Mutant

ROOT = Path(__file__).parents[3]
# T10 is looked for by canaries over the whole suite; webhooks (T13, T14) are not built.
THREATS = {f"T{number}" for number in range(1, 24)} - {"T10", "T13", "T14"}


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.threat)
def test_each_mutation_can_still_be_made(mutant):
    assert mutant.problem(ROOT) is None


def test_every_threat_has_a_mutant():
    assert {mutant.threat for mutant in MUTANTS} == THREATS


def problem_of(root: Path, mutant: Mutant) -> str:
    problem = mutant.problem(root)
    assert problem is not None
    return problem


def test_a_mutation_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "a.py").write_text("x = 1\nx = 1\n")
    assert "2 times" in problem_of(tmp_path, Mutant("T1", "a.py", "x = 1", "x = 2", "a.py"))
    assert "0 times" in problem_of(tmp_path, Mutant("T1", "b.py", "x = 1", "x = 2", "a.py"))
    assert "no b.py" in problem_of(tmp_path, Mutant("T1", "a.py", "x = 1\nx", "x", "b.py"))
