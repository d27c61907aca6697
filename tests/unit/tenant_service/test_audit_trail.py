"""Many chains at once: each is looked at by itself, and the digest covers the ends of all."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import chain, zip_longest
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from tenant_service.domain.audit_chain import End, Entry, Link, before_the_first, content_hash, link
from tenant_service.domain.audit_trail import TrailCheck

A, B = UUID(int=1), UUID(int=2)


def links(chain_id: UUID, length: int) -> list[Link]:
    made: list[Link] = []
    previous = before_the_first(chain_id)
    for position in range(1, length + 1):
        entry = Entry(
            id=UUID(int=1000 * chain_id.int + position),
            chain_id=chain_id,
            occurred_at=datetime(2026, 1, 1, tzinfo=UTC),
            actor="operator",
            actor_kind="operator",
            credential_id="c1",
            impersonator=None,
            action="tenant.suspend",
            target="t",
            detail={"n": position},
            request_id=None,
            context={},
        )
        previous = link(previous, position, content_hash(entry))
        made.append(Link(entry, position, content_hash(entry), previous))
    return made


def end_of(made: Sequence[Link]) -> End:
    return End(len(made), made[-1].hash)


def followed(*pages: Sequence[Link]) -> TrailCheck:
    check = TrailCheck()
    for page in pages:
        check.follow(page)
    return check


def test_the_digest_is_made_of_every_chain_by_id_length_and_head() -> None:
    a, b = links(A, 2), links(B, 3)
    found = followed(b, a).verify({B: end_of(b), A: end_of(a)})

    ends = A.bytes + (2).to_bytes(8, "big") + a[-1].hash + B.bytes + (3).to_bytes(8, "big") + b[-1].hash
    assert (found.chains, found.entries, found.broken) == (2, 5, ())
    assert found.digest == hashlib.sha256(ends).digest()


@given(st.integers(0, 6))
def test_pages_and_the_order_of_chains_make_no_difference(cut: int) -> None:
    a, b = links(A, 3), links(B, 4)
    mixed = [each for pair in zip_longest(a, b) for each in pair if each is not None]
    ends = {A: end_of(a), B: end_of(b)}

    found = followed(mixed[:cut], mixed[cut:])

    assert found.verify(ends) == followed(a, b).verify(ends)
    assert found.verify_alone() == followed(list(chain(a, b))).verify(ends)


def test_one_broken_chain_is_named_and_the_others_hold() -> None:
    a, b = links(A, 3), links(B, 3)
    forged = replace(b[1], entry=replace(b[1].entry, actor="nobody"))
    found = followed(a, [b[0], forged, b[2]])

    for verified in (found.verify({A: end_of(a), B: end_of(b)}), found.verify_alone()):
        (broken,) = verified.broken
        assert (broken.chain_id, broken.first.position, broken.first.entry_id) == (B, 2, b[1].entry.id)


def test_a_chain_without_entries_and_entries_without_a_chain_are_named() -> None:
    a, b = links(A, 1), links(B, 2)

    found = followed(b).verify({A: end_of(a)})

    assert [(each.chain_id, each.first.position) for each in found.broken] == [(A, 1), (B, 2)]
    assert found.chains == 2
    assert followed(b).verify_alone().broken == ()


def test_nothing_is_nothing() -> None:
    found = followed().verify({})
    assert (found.chains, found.entries, found.broken) == (0, 0, ())
