"""What a migration tree must look like."""

import pytest

from tenantry.database import MigrationError
from tenantry.database._tree import load_tree


@pytest.fixture
def tree(tmp_path):
    (tmp_path / "versions").mkdir()

    def load(*revisions):
        for name, parent, branch in revisions:
            text = f"revision = {name!r}\ndown_revision = {parent!r}\n"
            text += f"branch = {branch!r}\n" if branch else ""
            (tmp_path / "versions" / f"{name}_x.py").write_text(f"{text}\ndef upgrade(): ...\n")
        return load_tree(tmp_path)

    return load


def test_two_chains(tree):
    loaded = tree(("s1", None, "system"), ("s2", "s1", "system"), ("t1", None, "tenant"), ("t2", "t1", "tenant"))
    assert [script.revision for script in loaded.branches["system"]] == ["s1", "s2"]
    assert [script.revision for script in loaded.branches["tenant"]] == ["t1", "t2"]
    assert [script.revision for script in loaded.pending("tenant", None, "head")] == ["t1", "t2"]
    assert [script.revision for script in loaded.pending("tenant", "t1", "head")] == ["t2"]
    assert [script.revision for script in loaded.pending("tenant", None, "t1")] == ["t1"]
    assert list(loaded.pending("tenant", "t2", "t1")) == []


def test_a_branch_may_be_empty(tree):
    assert tree(("s1", None, "system")).branches["tenant"] == ()


@pytest.mark.parametrize(
    "revisions",
    [
        [("s1", None, "system"), ("t1", "s1", "tenant")],
        [("s1", None, "system"), ("s2", None, "system")],
        [("s1", None, "system"), ("s2", "s1", "system"), ("s3", "s1", "system")],
    ],
    ids=["crosses branches", "two bases", "two heads"],
)
def test_anything_but_two_chains_is_refused(tree, revisions):
    with pytest.raises(MigrationError, match="not one chain"):
        tree(*revisions)


@pytest.mark.parametrize("branch", [None, "pool"])
def test_a_module_says_its_branch(tree, branch):
    with pytest.raises(MigrationError, match="does not say"):
        tree(("s1", None, branch))


@pytest.mark.parametrize(("current", "target"), [("t9", "head"), (None, "t9")])
def test_a_database_that_is_newer_than_the_tree_is_left_alone(tree, current, target):
    with pytest.raises(MigrationError, match="t9"):
        tree(("t1", None, "tenant")).pending("tenant", current, target)
