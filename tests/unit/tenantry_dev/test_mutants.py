from pathlib import Path

import pytest

from tenantry_dev.mutants import MUTANTS, Change, Mutant

ROOT = Path(__file__).parents[3]
THREATS = {f"T{number}" for number in range(1, 24)} - {"T13", "T14"}  # those of webhooks, which are not built


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: f"{mutant.threat} {mutant.what}")
def test_each_mutant_can_still_be_tried(mutant):
    assert mutant.problem(ROOT) is None


def test_every_threat_has_a_mutant():
    assert {mutant.threat for mutant in MUTANTS} == THREATS


def test_no_two_mutants_are_called_the_same():
    assert len({(mutant.threat, mutant.what) for mutant in MUTANTS}) == len(MUTANTS)


@pytest.fixture
def tree(tmp_path):
    (tmp_path / "a.py").write_text("x = 1\nx = 1\ny = 1\n")
    (tmp_path / "test_a.py").write_text("def test_x(): ...\n")
    return tmp_path


def mutant(tests: str = "test_a.py::test_x", *changes: Change) -> Mutant:
    return Mutant("T1", "x is two", tests, changes or (Change("a.py", "y = 1", "y = 2"),))


def test_a_mutant_is_all_of_its_changes(tree):
    both = mutant("test_a.py", Change("a.py", "y = 1", "y = 2"), Change("a.py", "x = 1\nx", "x = 3\nx"))
    assert both.problem(tree) is None
    both.apply(tree)
    assert (tree / "a.py").read_text() == "x = 3\nx = 1\ny = 2\n"


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (mutant("test_a.py", Change("a.py", "x = 1", "x = 2")), "2 times in a.py"),
        (mutant("test_a.py", Change("b.py", "x = 1", "x = 2")), "0 times in b.py"),
        (mutant("test_b.py"), "no test_b.py"),
        (mutant("test_a.py::test_y"), "no test_a.py::test_y"),
    ],
)
def test_a_mutant_that_cannot_be_tried_says_why(tree, broken, said):
    assert mutant().problem(tree) is None
    problem = broken.problem(tree)
    assert problem is not None
    assert said in problem
