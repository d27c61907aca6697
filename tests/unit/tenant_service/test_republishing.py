"""Where a topic and the tables differ."""

from hypothesis import given
from hypothesis import strategies as st

from tenant_service.republishing.comparison import Difference, Seen, compare

VERSIONS = st.dictionaries(st.sampled_from("abcde"), st.integers(1, 3))
SEEN = st.dictionaries(st.sampled_from("abcde"), st.builds(Seen, st.integers(1, 3), st.booleans()))


def differences(table, seen):
    return {finding.key: finding.difference for finding in compare("t", table, seen)}


def test_each_kind_of_difference():
    table = {"same": 2, "missing": 1, "stale": 3, "gone": 3, "ahead": 3}
    seen = {
        "same": Seen(2, gone=False),
        "stale": Seen(2, gone=False),
        "gone": Seen(3, gone=True),
        "ahead": Seen(4, gone=False),
        "left over": Seen(1, gone=False),
        "withdrawn": Seen(1, gone=True),
    }
    assert differences(table, seen) == {
        "missing": Difference.MISSING,
        "stale": Difference.STALE,
        "gone": Difference.STALE,
        "ahead": Difference.AHEAD,
        "left over": Difference.LEFT_OVER,
    }


@given(VERSIONS, SEEN)
def test_after_publishing_only_what_is_ahead_differs(table, seen):
    found = differences(table, seen)
    after = dict(seen)
    for key, difference in found.items():
        if difference is Difference.LEFT_OVER:
            after[key] = Seen(seen[key].version + 1, gone=True)
        elif difference is not Difference.AHEAD:
            after[key] = Seen(table[key], gone=False)
    assert set(differences(table, after).values()) <= {Difference.AHEAD}
