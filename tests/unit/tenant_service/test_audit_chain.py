"""The hash chain: what holds, and what is named when it does not."""

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenant_service.domain.audit_chain import (
    Break,
    ChainCheck,
    End,
    Entry,
    Link,
    before_the_first,
    canonical,
    content_hash,
    link,
)

CHAIN = UUID("01890a5d-ac96-774b-bcce-b302099a8057")


def entry(detail: dict[str, Any] | None = None, chain_id: UUID = CHAIN) -> Entry:
    return Entry(
        id=uuid4(),
        chain_id=chain_id,
        occurred_at=datetime(2026, 1, 1, tzinfo=UTC),
        actor="operator",
        actor_kind="operator",
        credential_id="c1",
        impersonator=None,
        action="tenant.suspend",
        target=str(CHAIN),
        detail=detail or {},
        request_id=None,
        context={},
    )


def chain(entries: Sequence[Entry]) -> list[Link]:
    links: list[Link] = []
    previous = before_the_first(entries[0].chain_id)
    for position, each in enumerate(entries, start=1):
        previous = link(previous, position, content_hash(each))
        links.append(Link(each, position, content_hash(each), previous))
    return links


def check(links: Sequence[Link], end: End | None, chain_id: UUID = CHAIN) -> Break | None:
    followed = ChainCheck(chain_id)
    for each in links:
        followed.follow(each)
    return followed.compare(end)


WHOLE = chain([entry({"n": n}) for n in range(4)])
END = End(4, WHOLE[-1].hash)


def test_a_whole_chain_holds() -> None:
    assert check(WHOLE, END) is None
    assert check([], None) is None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("actor", "somebody-else"),
        ("impersonator", "boss"),
        ("detail", {"n": 1.5}),
        ("occurred_at", datetime(2026, 1, 2, tzinfo=UTC)),
        ("request_id", "r"),
        ("context", {"address": "::1"}),
        ("target", ""),
        ("action", "tenant.update"),
        ("actor_kind", "service"),
        ("credential_id", ""),
    ],
)
def test_changed_content_is_named(field: str, value: Any) -> None:
    changed = replace(WHOLE[1], entry=replace(WHOLE[1].entry, **{field: value}))

    found = check([WHOLE[0], changed, *WHOLE[2:]], END)

    assert found == Break(2, WHOLE[1].entry.id, "the content is not what was hashed")


def test_content_whose_hash_was_changed_with_it_does_not_follow() -> None:
    forged = replace(WHOLE[1].entry, actor="somebody-else")
    changed = replace(WHOLE[1], entry=forged, content_hash=content_hash(forged))

    found = check([WHOLE[0], changed, *WHOLE[2:]], END)

    assert found is not None
    assert (found.position, found.reason) == (2, "the entry does not follow from the one before it")


def test_a_link_that_was_made_to_fit_breaks_the_next() -> None:
    forged = replace(WHOLE[1].entry, actor="somebody-else")
    content = content_hash(forged)
    changed = Link(forged, 2, content, link(WHOLE[0].hash, 2, content))

    found = check([WHOLE[0], changed, *WHOLE[2:]], END)

    assert found is not None
    assert found.position == 3


def test_an_entry_that_is_gone_is_named_wherever_it_was() -> None:
    assert check(WHOLE[1:], END) == Break(1, None, "the entry is missing")
    assert check([*WHOLE[:2], WHOLE[3]], END) == Break(3, None, "the entry is missing")
    assert check(WHOLE[:3], END) == Break(4, None, "the entry is missing: the chain is longer")
    assert check([], END) == Break(1, None, "the entry is missing: the chain is longer")


def test_an_entry_beyond_the_end_and_another_head_are_named() -> None:
    found = check(WHOLE, End(3, WHOLE[2].hash))
    assert found == Break(4, WHOLE[3].entry.id, "the chain does not end with this entry")
    assert check(WHOLE, End(4, bytes(32))) == found
    assert check(WHOLE, None) == found


def test_a_chain_of_another_tenant_does_not_fit() -> None:
    found = check(WHOLE, END, uuid4())

    assert found is not None
    assert found.position == 1


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


@given(plain)
def test_canonical_json_is_what_it_was_and_stays_so(value: object) -> None:
    text = canonical(value)

    assert json.loads(text) == value
    assert canonical(json.loads(text)) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [({"b": 1, "a": [1.0, -0.0]}, '{"a":[1.0,0.0],"b":1}'), (1e16, "10000000000000000"), ("é\n", '"é\\n"')],
)
def test_canonical_json_is_written_one_way(value: object, text: str) -> None:
    assert canonical(value) == text


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_json_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="JSON"):
        canonical(value)
