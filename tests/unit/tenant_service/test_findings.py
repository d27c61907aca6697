"""What a report shows, whatever the registry and the service say: nothing is judged that is on its way."""

from dataclasses import replace
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenant_service.domain.findings import (
    GONE,
    OF_DIRECTORY,
    OF_PAGES,
    RULES,
    Desired,
    FindingCode,
    Repair,
    agreement,
    judge,
    silence,
)
from tenantry import Isolation, Placement, TenantStatus
from tenantry.reconciling import (
    Look,
    ObservedTenant,
    PlaceCondition,
    Report,
    RowsLeft,
    UnexpectedPlace,
    digest_of,
)

A, B, GONE_ID, STRANGER = (UUID(int=number) for number in (1, 2, 3, 4))
LOOK = Look(digest="")
SCHEMA = Placement("primary", Isolation.SCHEMA)


def line(tenant_id=A, **changes):
    known = ObservedTenant(
        id=tenant_id,
        version=5,
        status=TenantStatus.ACTIVE,
        read_only=False,
        moving=False,
        tier="standard",
        tier_version=3,
        placement=SCHEMA,
        place=PlaceCondition.READY,
    )
    return msgspec.structs.replace(known, **changes)


DESIRED = Desired({A: line(A), B: line(B)}, frozenset({GONE_ID}), {"standard": 3})
BASELINE = DESIRED.baseline()


def judged(*seen, desired=DESIRED, baseline=BASELINE, look=LOOK, lag=0.1, **more):
    report = Report(agrees=False, follows=True, lag_seconds=lag, tenants=tuple(seen), **more)
    return judge(look, "app", desired, report, baseline, longest_lag=30)


def codes(*seen, **more):
    return {(finding.code, finding.tenant_id) for finding in judged(*seen, **more).findings}


@pytest.mark.parametrize(
    ("seen", "code"),
    [
        (None, FindingCode.TENANT_UNKNOWN),
        (line(version=4), FindingCode.TENANT_BEHIND),
        (line(version=6), FindingCode.TENANT_AHEAD),
        (line(status=TenantStatus.SUSPENDED), FindingCode.TENANT_DIFFERS),
        (line(read_only=True), FindingCode.TENANT_DIFFERS),
        (line(moving=True), FindingCode.TENANT_DIFFERS),
        (line(tier="gold"), FindingCode.TENANT_DIFFERS),
        (line(placement=Placement("other", Isolation.SCHEMA)), FindingCode.TENANT_DIFFERS),
        (line(placement=Placement("primary", Isolation.SCHEMA, epoch=2)), FindingCode.TENANT_DIFFERS),
        (line(place=PlaceCondition.MISSING), FindingCode.PLACE_MISSING),
        (line(place=PlaceCondition.BEHIND), FindingCode.PLACE_BEHIND),
        (line(place=PlaceCondition.UNSERVED), FindingCode.STORE_UNSERVED),
    ],
)
def test_what_differs_has_its_own_code(seen, code):
    assert codes(*([] if seen is None else [seen]), line(B)) == {(code, A)}


def test_equal_lines_show_nothing():
    assert codes(line(A), line(B)) == set()


@pytest.mark.parametrize("seen", [[], [line(version=4)], [line(place=PlaceCondition.MISSING)]])
def test_a_tenant_with_a_run_under_way_is_not_judged(seen):
    desired = replace(DESIRED, in_transit=frozenset({A}))
    judgement = judged(*seen, line(B), desired=desired)
    assert judgement.findings == ()
    assert not judgement.closes((FindingCode.PLACE_MISSING, "app", str(A)), A)
    assert judgement.closes((FindingCode.PLACE_MISSING, "app", str(B)), B)


def test_what_changed_since_the_last_look_is_on_its_way():
    desired = replace(DESIRED, tenants={A: line(version=7), B: line(B)})
    # Behind the registry of now, and not behind that of the last look.
    assert codes(line(version=5), line(B), desired=desired) == set()
    assert codes(line(version=4), line(B), desired=desired) == {(FindingCode.TENANT_BEHIND, A)}
    # Not there at the last look: a tenant that has just been made.
    made = {key: version for key, version in BASELINE.items() if key != str(A)}
    assert codes(line(B), baseline=made) == set()


@pytest.mark.parametrize("lag", [None, 31.0])
def test_a_directory_that_is_old_is_said_once_and_not_judged(lag):
    judgement = judged(lag=lag)
    assert [finding.code for finding in judgement.findings] == [FindingCode.SERVICE_LAGGING]
    for code in OF_DIRECTORY:
        assert not judgement.closes((code, "app", str(A)), A)
    assert judgement.closes((FindingCode.SERVICE_SILENT, "app", "app"), None)


def test_who_knows_a_tenant_that_is_gone_is_found_when_it_was_gone_before():
    assert codes(line(A), line(B), line(GONE_ID)) == {(FindingCode.TENANT_LEFT_OVER, GONE_ID)}
    assert codes(line(A), line(B), line(STRANGER)) == {(FindingCode.TENANT_LEFT_OVER, STRANGER)}
    just_purged = BASELINE | {str(GONE_ID): 9}
    assert codes(line(A), line(B), line(GONE_ID), baseline=just_purged) == set()
    assert BASELINE[str(GONE_ID)] == GONE


def place(tenant_id, store="primary"):
    return UnexpectedPlace(tenant_id=tenant_id, isolation=Isolation.SCHEMA, store=store, name="t_x")


def test_places_of_nobody_are_orphans():
    for tenant_id in (GONE_ID, STRANGER):
        found = codes(line(A), line(B), places=(place(tenant_id),))
        assert found == {(FindingCode.PLACE_ORPHANED, tenant_id)}
    # Where the registry has placed the tenant, the service has yet to hear of it.
    assert codes(line(A), line(B), places=(place(A),)) == set()
    assert codes(line(A), line(B), places=(place(A, "other"),)) == {(FindingCode.PLACE_ORPHANED, A)}
    moving = replace(DESIRED, in_transit=frozenset({A}))
    assert codes(line(A), line(B), places=(place(A, "other"),), desired=moving) == set()
    just_made = {key: version for key, version in BASELINE.items() if key != str(STRANGER)} | {str(STRANGER): 1}
    assert codes(line(A), line(B), places=(place(STRANGER),), baseline=just_made) == set()


def test_rows_are_left_of_tenants_that_are_gone():
    rows = (RowsLeft(tenant_id=GONE_ID, table="pool.x"), RowsLeft(tenant_id=A, table="pool.x"))
    assert codes(line(A), line(B), rows=rows) == {(FindingCode.ROWS_LEFT, GONE_ID)}


def test_a_tier_is_behind_the_one_of_the_last_look():
    old = line(tier_version=2)
    (finding,) = judged(old, line(B, tier_version=2)).findings
    assert (finding.code, finding.subject) == (FindingCode.TIER_BEHIND, "standard")
    assert judged(old, line(B, tier_version=2), baseline=BASELINE | {"tier/standard": 2}).findings == ()
    assert judged(line(A), line(B)).closes((FindingCode.TIER_BEHIND, "app", "standard"), None)


def test_faults_of_the_catalogue_come_with_the_first_page():
    first = judged(line(A), line(B), faults=("x is not in the data catalogue",))
    assert [finding.code for finding in first.findings] == [FindingCode.TABLE_UNCLASSIFIED]
    later = judged(line(A), line(B), look=Look(after=UUID(int=0), digest=""))
    key = (FindingCode.TABLE_UNCLASSIFIED, "app", "x is not in the data catalogue")
    assert not later.closes(key, None)
    assert agreement(LOOK, "app", DESIRED).closes(key, None)


def test_silence_closes_nothing():
    judgement = silence(LOOK, "app", "it does not answer")
    assert [finding.code for finding in judgement.findings] == [FindingCode.SERVICE_SILENT]
    assert not any(judgement.closes((code, "app", str(A)), A) for code in OF_PAGES)


def test_only_what_the_page_covers_is_closed():
    page = Look(after=A, until=B, digest="")
    judgement = agreement(page, "app", DESIRED)
    assert judgement.closes((FindingCode.TENANT_UNKNOWN, "app", str(B)), B)
    assert not judgement.closes((FindingCode.TENANT_UNKNOWN, "app", str(A)), A)
    assert not judgement.closes((FindingCode.TENANT_UNKNOWN, "usage", str(B)), B)
    assert not judgement.closes((FindingCode.NOT_PROVISIONED, "app", str(B)), B)


def test_nothing_that_may_hold_data_is_repaired():
    for code in (FindingCode.PLACE_ORPHANED, FindingCode.ROWS_LEFT, FindingCode.TENANT_LEFT_OVER):
        assert RULES[code][1] is Repair.NONE
    assert RULES.keys() == set(FindingCode)


lines = st.builds(
    line,
    tenant_id=st.sampled_from([A, B, GONE_ID, STRANGER]),
    version=st.integers(1, 9),
    status=st.sampled_from(TenantStatus),
    place=st.sampled_from(PlaceCondition),
)
pages = st.lists(lines, unique_by=lambda each: each.id).map(lambda found: {each.id: each for each in found})


@given(pages, pages)
def test_pages_with_one_digest_show_nothing(wanted, seen):
    desired = Desired(wanted, frozenset(), {"standard": 3})
    if digest_of(wanted.values()) == digest_of(seen.values()):
        judgement = judged(*seen.values(), desired=desired, baseline=desired.baseline())
        assert {finding.code for finding in judgement.findings} <= {
            FindingCode.PLACE_MISSING,
            FindingCode.PLACE_BEHIND,
            FindingCode.STORE_UNSERVED,
        }
    else:
        assert wanted != seen


@given(pages, pages)
def test_a_finding_and_its_end_are_never_shown_at_once(wanted, seen):
    desired = Desired(wanted, frozenset(), {"standard": 3})
    judgement = judged(*seen.values(), desired=desired, baseline=desired.baseline())
    assert not any(judgement.closes(finding.key, finding.tenant_id) for finding in judgement.findings)
    assert len({finding.key for finding in judgement.findings}) == len(judgement.findings)
