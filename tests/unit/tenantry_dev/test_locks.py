from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tenantry_dev.locks import findings
from tenantry_dev.stack.jars import ENDPOINTS, Jar, locked_jars

ROOT = Path(__file__).parents[3]


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    for path in [ROOT / "pyproject.toml", ROOT / "requirements.lock", *ROOT.glob("*/*/pyproject.toml")]:
        target = tmp_path / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    return tmp_path


def test_the_lock_satisfies_every_project() -> None:
    assert findings(ROOT) == []


def test_a_dependency_that_is_not_locked_shows(workspace: Path) -> None:
    project = workspace / "infra" / "dev" / "pyproject.toml"
    project.write_text(project.read_text().replace('"psutil>=7"', '"psutil>=7", "left-pad>=1"'))

    assert findings(workspace) == ["infra/dev/pyproject.toml: left-pad is not in requirements.lock"]


def test_a_dependency_that_was_raised_shows(workspace: Path) -> None:
    project = workspace / "infra" / "dev" / "pyproject.toml"
    project.write_text(project.read_text().replace('"psutil>=7"', '"psutil>=700"'))

    (finding,) = findings(workspace)
    assert "psutil>=700 is not satisfied" in finding


def test_every_jar_is_pinned_by_digest() -> None:
    jars = locked_jars()

    assert all(len(jar.sha256) == 64 for jar in jars)
    assert len({jar.file_name for jar in jars}) == len(jars)
    assert {f"{jar.group}:{jar.artifact}:{jar.version}" for jar in jars} >= set(ENDPOINTS)
    assert all(Jar.parse(jar.line) == jar for jar in jars)
