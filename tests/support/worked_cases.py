"""Worked numbers of other systems, which lie beside the repository or where TENANTRY_CASES says.

An adapter says what it knows of a case, and fails for what it does not: a case that nobody has read is no case that
passes. Only a rule that says otherwise skips one, by its name.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
FOLDER = Path(os.environ.get("TENANTRY_CASES", REPOSITORY.parent / "shared" / "cases"))

needs_cases = pytest.mark.skipif(not FOLDER.is_dir(), reason=f"no shared cases in {FOLDER} (TENANTRY_CASES)")


def cases(system: str, *areas: str) -> list[Any]:
    """The cases of these areas, as parameters of a test."""
    return [pytest.param(case, id=case["name"]) for case in _read(system) if case["area"] in areas]


def areas_of(*systems: str) -> set[str]:
    """All areas that the systems have cases of."""
    return {case["area"] for system in systems for case in _read(system)}


def only(given: Mapping[str, Any], *known: str) -> None:
    """Fails where a case says something that its test does not read."""
    unknown = sorted(given.keys() - set(known))
    if unknown:
        pytest.fail(f"nobody has said what {', '.join(unknown)} means here")


def _read(system: str) -> list[dict[str, Any]]:
    file = FOLDER / f"{system}.json"
    found: list[dict[str, Any]] = json.loads(file.read_text()) if file.is_file() else []
    return found
