"""`like`, against a matcher that tries everything."""

from __future__ import annotations

from time import perf_counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from usage_service.domain.errors import InvalidDefinition
from usage_service.domain.filters import LONGEST_PATTERN, predicate


def model(pattern: str, text: str) -> bool:
    """Which prefixes of the text the pattern so far matches, character by character."""
    ends = {0}
    for char in pattern:
        if char == "%":
            ends = set(range(min(ends), len(text) + 1)) if ends else ends
        else:
            ends = {end + 1 for end in ends if end < len(text) and char in {"_", text[end]}}
    return len(text) in ends


@given(st.text("ab%_\n.", max_size=12), st.text("ab\n.", max_size=14))
def test_it_matches_what_sql_does(pattern, text):
    assert predicate("like", pattern, loc="x")(text) is model(pattern, text)


@pytest.mark.parametrize(
    "pattern", ["%a" * 12 + "%b", "%" * 400 + "b", "%a_" * 100 + "%b", "a%" * 200 + "b", "%" + "_" * 500 + "b"]
)
def test_no_pattern_takes_long(pattern):
    matches = predicate("like", pattern, loc="x")
    started = perf_counter()
    assert not matches("a" * 5_000)
    assert perf_counter() - started < 1


def test_a_pattern_has_a_bound():
    with pytest.raises(InvalidDefinition):
        predicate("like", "%" * (LONGEST_PATTERN + 1), loc="x")
