"""Checks, without the network, that requirements.lock satisfies every pyproject.toml of the workspace.

    python -m tenantry_dev.locks

It sees what people forget (a dependency added or raised without `make lock`); it does not look for newer versions.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

_PINNED = re.compile(r"^([A-Za-z0-9._-]+)==([^ ;\\]+)", re.MULTILINE)


def findings(root: Path) -> list[str]:
    """What requirements.lock at the root lacks, one sentence each; empty when all is well."""
    text = (root / "requirements.lock").read_text(encoding="utf-8")
    locked: dict[str, list[Version]] = {}
    for name, version in _PINNED.findall(text):
        # A universal lock may hold several versions of one package, for different platforms.
        locked.setdefault(canonicalize_name(name), []).append(Version(version))
    projects = [root / "pyproject.toml", *sorted(root.glob("*/*/pyproject.toml"))]
    documents = {path: tomllib.loads(path.read_text(encoding="utf-8")) for path in projects}
    own = {canonicalize_name(document["project"]["name"]) for document in documents.values()}
    return [
        finding
        for path, document in documents.items()
        for requirement in _requirements(document)
        if canonicalize_name(requirement.name) not in own
        for finding in _judge(path.relative_to(root), requirement, locked)
    ]


def _requirements(document: Mapping[str, Any]) -> Iterator[Requirement]:
    project = document["project"]
    groups = [
        project.get("dependencies", []),
        *project.get("optional-dependencies", {}).values(),
        *document.get("dependency-groups", {}).values(),
        document.get("build-system", {}).get("requires", []),
    ]
    return (Requirement(line) for group in groups for line in group)


def _judge(project: Path, requirement: Requirement, locked: Mapping[str, list[Version]]) -> Iterator[str]:
    versions = locked.get(canonicalize_name(requirement.name))
    if versions is None:
        yield f"{project}: {requirement.name} is not in requirements.lock"
    elif not any(requirement.specifier.contains(version, prereleases=True) for version in versions):
        yield f"{project}: {requirement} is not satisfied by {', '.join(map(str, versions))} of requirements.lock"


def main() -> int:
    found = findings(Path.cwd())
    for finding in found:
        print(finding, file=sys.stderr)  # noqa: T201 - a check on the command line
    if found:
        print("Run `make lock` and commit the result.", file=sys.stderr)  # noqa: T201
        return 1
    print("requirements.lock satisfies every pyproject.toml")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
