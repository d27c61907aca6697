"""Taking one person out of details, and what a chain says of it."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from tenant_service.domain.audit_chain import ERASURE, REPLACED, Break, End, Link, content_hash
from tenant_service.domain.audit_erasing import PREFIX, new_pseudonym, without

from .test_audit_chain import chain, check, entry

PSEUDONYMS = {"alice": "A", "alice@example.com": "M"}


@pytest.mark.parametrize(
    ("detail", "erased"),
    [
        ({"by": "alice"}, {"by": "A"}),
        ({"email": "alice@example.com", "n": 1}, {"email": "M", "n": 1}),
        ({"note": "asked by alice@example.com, and by alice."}, {"note": "asked by M, and by A."}),
        ({"deep": [{"alice": ["alice", None, True, 1.5]}]}, {"deep": [{"A": ["A", None, True, 1.5]}]}),
        ({"note": "malice"}, {"note": "malice"}),
    ],
)
def test_every_text_and_word_gives_way(detail: dict[str, Any], erased: dict[str, Any]) -> None:
    assert without(detail, PSEUDONYMS) == erased


def test_values_are_no_patterns() -> None:
    assert without({"note": "a.b aXb"}, {"a.b": "P"}) == {"note": "P aXb"}


def test_pseudonyms_are_of_nothing() -> None:
    assert new_pseudonym() != new_pseudonym()
    assert new_pseudonym().startswith(PREFIX)


def erased(position: int, detail: dict[str, Any], *, told: dict[str, str] | None = None) -> list[Link]:
    """A chain of four, one of which got another detail, and an erasure that tells of it."""
    entries = [entry({"n": n}) for n in range(4)]
    changed = replace(entries[position - 1], detail=detail)
    told = {str(position): content_hash(changed).hex()} if told is None else told
    links = chain([*entries, replace(entry({REPLACED: told}), action=ERASURE)])
    return _with(links, position, detail)


def _with(links: Sequence[Link], position: int, detail: dict[str, Any]) -> list[Link]:
    changed = links[position - 1]
    changed = replace(changed, entry=replace(changed.entry, detail=detail))
    return [*links[: position - 1], changed, *links[position:]]


def test_what_an_erasure_tells_of_holds() -> None:
    links = erased(2, {"n": "erased:x"})
    assert check(links, End(5, links[-1].hash)) is None


def test_an_entry_may_be_erased_twice() -> None:
    entries = [entry({"n": n}) for n in range(2)]
    told = []
    for detail in ({"n": "erased:x"}, {"n": "erased:y"}):
        changed = replace(entries[0], detail=detail)
        told.append(replace(entry({REPLACED: {"1": content_hash(changed).hex()}}), action=ERASURE))
    links = _with(chain([*entries, *told]), 1, {"n": "erased:y"})
    assert check(links, End(4, links[-1].hash)) is None


@pytest.mark.parametrize(
    ("position", "detail", "told"),
    [
        (2, {"n": "forged"}, {}),
        (2, {"n": "forged"}, {"3": "00"}),
        (2, {"n": "forged"}, {"2": "00" * 32}),
        (2, {"n": "forged"}, ["2"]),
    ],
)
def test_what_no_erasure_tells_of_is_named(position: int, detail: dict[str, Any], told: Any) -> None:
    links = erased(position, detail, told=told)
    found = check(links, End(5, links[-1].hash))
    assert found == Break(position, links[position - 1].entry.id, "the content is not what was hashed")


def test_what_changed_after_its_erasure_is_named() -> None:
    links = erased(2, {"n": "erased:x"})
    forged = _with(links, 2, {"n": "forged"})
    found = check(forged, End(5, links[-1].hash))
    assert found is not None
    assert found.position == 2


def test_only_an_erasure_is_believed() -> None:
    entries = [entry({"n": n}) for n in range(2)]
    changed = replace(entries[0], detail={"n": "forged"})
    links = _with(chain([*entries, entry({REPLACED: {"1": content_hash(changed).hex()}})]), 1, {"n": "forged"})
    found = check(links, End(3, links[-1].hash))
    assert found is not None
    assert found.position == 1
