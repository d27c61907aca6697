"""A service's migration tree as the runner sees it: two chains of revisions, loaded once a process."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from alembic.script import Script, ScriptDirectory

from tenantry.database._errors import MigrationError

Branch = Literal["system", "tenant"]
BRANCHES: tuple[Branch, ...] = ("system", "tenant")


@dataclass(frozen=True, slots=True)
class MigrationTree:
    """The revisions of a service, oldest first, by branch."""

    scripts: ScriptDirectory
    branches: dict[Branch, tuple[Script, ...]]

    def pending(self, branch: Branch, current: str | None, target: str) -> Sequence[Script]:
        """The revisions after ``current`` up to and with ``target`` (a revision, or ``head``).

        Raises MigrationError for a revision that the tree does not have: the database is newer than the code, and
        running old code on it is not for the migrator to decide.
        """
        chain = self.branches[branch]
        revisions = [script.revision for script in chain]
        for revision in (current, target):
            if revision not in (None, "head", *revisions):
                msg = f"revision {revision!r} is not in branch {branch!r} of {self.scripts.dir}"
                raise MigrationError(msg)
        first = 0 if current is None else revisions.index(current) + 1
        last = len(chain) if target == "head" else revisions.index(target) + 1
        return chain[first:last]


def migrations_directory(service: str) -> Path:
    """Where the service's migrations lie: inside its installed package, else beside its sources in the repository."""
    spec = find_spec(f"{service}_service")
    if spec is None or spec.origin is None:
        msg = f"package {service}_service is not installed"
        raise MigrationError(msg)
    package = Path(spec.origin).parent
    for candidate in (package / "migrations", package.parents[1] / "migrations"):
        if (candidate / "versions").is_dir():
            return candidate
    msg = f"{package} has no migrations"
    raise MigrationError(msg)


@lru_cache(maxsize=32)
def load_tree(directory: Path) -> MigrationTree:
    """Loads and checks the tree in ``directory``; later calls return the same object.

    Every module says ``branch = "system"`` or ``branch = "tenant"``, and its ``down_revision`` is of the same branch.
    """
    scripts = ScriptDirectory(str(directory), file_template="%%(rev)s_%%(slug)s")
    modules = list(scripts.walk_revisions())[::-1]
    branches: dict[Branch, tuple[Script, ...]] = {}
    for branch in BRANCHES:
        chain: list[Script] = []
        remaining = {str(script.down_revision or ""): script for script in modules if _branch(script) == branch}
        count = sum(_branch(script) == branch for script in modules)
        previous = ""
        while (script := remaining.get(previous)) is not None:
            chain.append(script)
            previous = script.revision
        if len(chain) != count:
            msg = (
                f"branch {branch!r} of {directory} is not one chain of revisions from a base with down_revision = None"
            )
            raise MigrationError(msg)
        branches[branch] = tuple(chain)
    return MigrationTree(scripts, branches)


def _branch(script: Script) -> Branch:
    said = getattr(script.module, "branch", None)
    for branch in BRANCHES:
        if said == branch:
            return branch
    msg = f'{script.path} does not say branch = "system" or branch = "tenant"'
    raise MigrationError(msg)
