from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from tenant_service.domain.domain_claims import DomainPolicy, DomainState, challenge_name, is_proof, recheck
from tenant_service.domain.quarantine import NameQuarantined, Quarantine, check_takeable

NOW = datetime(2026, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
POLICY = DomainPolicy(check_every=DAY, grace=7 * DAY, quarantine=90 * DAY)
A, B = UUID(int=1), UUID(int=2)


def test_the_challenge_stands_below_the_domain():
    assert challenge_name("example.com") == "_tenantry-challenge.example.com"


@pytest.mark.parametrize(
    ("records", "proof"),
    [
        ([], False),
        (["other"], False),
        (["prefix-secret"], False),
        (["secret-suffix"], False),
        (["SECRET"], False),
        (["secret"], True),
        (["other", " secret "], True),
    ],
)
def test_only_the_text_itself_proves(records, proof):
    assert is_proof(records, "secret") is proof


def test_a_proof_that_is_there_is_looked_for_a_day_later():
    after = recheck(proven=True, failing_since=NOW - DAY, now=NOW, policy=POLICY)
    assert (after.state, after.failing_since, after.next_check_at) == (DomainState.VERIFIED, None, NOW + DAY)


def test_a_missing_proof_has_the_grace_and_no_longer():
    first = recheck(proven=False, failing_since=None, now=NOW, policy=POLICY)
    assert (first.state, first.failing_since) == (DomainState.VERIFIED, NOW)
    assert first.next_check_at == NOW + timedelta(hours=1)
    last = recheck(proven=False, failing_since=NOW, now=NOW + 7 * DAY - timedelta(seconds=1), policy=POLICY)
    assert last.state is DomainState.VERIFIED
    over = recheck(proven=False, failing_since=NOW, now=NOW + 7 * DAY, policy=POLICY)
    assert (over.state, over.next_check_at) == (DomainState.FAILED, None)


def test_names_in_quarantine_are_for_their_former_tenant():
    held = Quarantine(A, NOW)
    check_takeable(None, by=B, now=NOW)
    check_takeable(held, by=A, now=NOW - DAY)
    check_takeable(held, by=B, now=NOW)
    with pytest.raises(NameQuarantined):
        check_takeable(held, by=B, now=NOW - timedelta(microseconds=1))
