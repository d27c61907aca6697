"""What benches say of their figures, and what the chart says of it."""

import xml.etree.ElementTree as ET
from math import inf

import pytest
from chart import bars, chart
from load import Outcome, statuses
from report import drift, merge, percentiles, row
from usage_stack import MARK, ever_new


def test_a_row_has_the_ratio_to_its_limit():
    assert row("a", 60.0, "events/s", limit=80.0)["ratio"] == 0.75
    assert row("a", 60.0, "events/s")["ratio"] is None
    assert row("a", None, "events/s", limit=80.0)["ratio"] is None


def test_drift_looks_at_the_last_four_fifths():
    warming = [100, 500]
    assert drift([*warming, 1000, 1000, 1020, 1000, 990, 1000, 1000, 1000]) == 0.03
    assert drift([1000] * 10) == 0.0
    assert drift([1]) is None


def test_what_never_came_is_infinitely_late():
    assert percentiles([1.0] * 98 + [inf] * 2) == {"p50": 1.0, "p99": inf}
    assert percentiles([1.0] * 99 + [inf]) == {"p50": 1.0, "p99": 1.0}


def test_a_rate_is_of_what_was_accepted():
    assert Outcome(seconds=2.0, answered=10, accepted=4).rate == 2.0


def test_merged_rows_replace_those_of_their_name_and_no_other(tmp_path):
    path = tmp_path / "new" / "bench.json"
    merge(path, [row("a", 1.0, "s"), row("b", 2.0, "s")])
    assert {each["name"]: each["value"] for each in merge(path, [row("a", 3.0, "s")])} == {"a": 3.0, "b": 2.0}


def test_statuses_of_several_runs_add_up():
    assert statuses([Outcome(statuses={202: 5, 429: 1}), Outcome(statuses={202: 2})]) == {202: 7, 429: 1}


def test_events_are_of_another_source_each_time_round_and_as_long():
    requests = [b"one " + MARK, b"two " + MARK]
    made = ever_new(requests)
    taken = [next(made) for _ in range(4)]
    assert [len(each) for each in taken] == [len(each) for each in requests] * 2
    assert taken[0].split()[1] == taken[1].split()[1] != taken[2].split()[1]


@pytest.mark.parametrize(
    ("figure", "is_good"),
    [
        (row("ratio", 75.0, "events/s", limit=100.0, goal_ratio=0.7), True),
        (row("ratio", 65.0, "events/s", limit=100.0, goal_ratio=0.7, goal=10), False),
        (row("rate", 65_000.0, "events/s", limit=300_000.0, goal=60_000), True),
        (row("rate", 55_000.0, "events/s", goal=60_000), False),
        (row("time", 45.0, "ms", goal=50.0), True),
        (row("time", 55.0, "ms", goal=50.0), False),
        (row("plain", 55.0, "events/s", limit=60.0), None),
        (row("both", 75.0, "events/s", limit=100.0, goal_ratio=0.7, goal=80), False),
        (row("bounded", 75.0, "events/s", goal=70, at_most={"late": [0.9, 1.0]}), True),
        (row("late", 75.0, "events/s", goal=70, at_most={"late": [inf, 1.0]}), False),
        (row("unknown", 75.0, "events/s", goal=70, at_most={"drift": [None, 0.05]}), False),
    ],
)
def test_a_bar_is_judged_by_its_goal(figure, is_good):
    [bar] = bars([figure])
    assert bar.is_good is is_good


def test_the_chart_is_a_document_with_a_bar_for_what_can_be_compared():
    rows = [row("<odd> & name", 75.0, "events/s", limit=100.0), row("alone", 5.0, "s"), row("none", None, "s", goal=1)]
    document = ET.fromstring(chart(rows, "Usage"))  # noqa: S314 (our own)
    texts = [each.text for each in document.iter() if each.text]
    assert "<odd> & name" in texts
    assert not {"alone", "none"} & set(texts)
