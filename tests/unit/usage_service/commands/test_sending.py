"""Batches as requests that are repeated until they are answered."""

from __future__ import annotations

import httpx
import pytest

from tenantry.cli import CommandFailed, Unreachable
from usage_service.commands._importing import BATCH
from usage_service.commands._progress import Journal

from .support import Service, accepted, lines, run, source


def test_batches_go_in_order_and_are_bounded(tmp_path):
    service = Service()
    tally, _ = run(service, lines(BATCH * 2 + 1), tmp_path)
    assert [len(asked) for asked in service.asked] == [BATCH, BATCH, 1]
    assert [each for asked in service.asked for each in asked] == [str(n) for n in range(BATCH * 2 + 1)]
    assert (tally.lines, tally.sent, tally.accepted) == (BATCH * 2 + 1,) * 3
    large = Service()
    run(large, lines(8, size=1 << 20), tmp_path)
    assert max(map(len, large.asked)) == 2
    assert sum(map(len, large.asked)) == 8


def test_what_passes_is_waited_for_as_long_as_it_says(tmp_path, slept):
    busy = httpx.Response(429, headers={"Retry-After": "7"})
    service = Service(busy, httpx.Response(503), httpx.ConnectError("away"), httpx.ReadTimeout("slow"))
    tally, _ = run(service, lines(3), tmp_path)
    assert service.asked == [["0", "1", "2"]] * 5
    assert slept[0] == 7
    assert all(pause < 7 for pause in slept[1:])
    assert tally.accepted == 3


def test_only_the_events_over_a_rate_are_sent_again(tmp_path):
    service = Service(
        accepted(4, (0, "invalid"), (1, "rate-limited"), (3, "rate-limited")), accepted(2, (1, "invalid"))
    )
    tally, _ = run(service, lines(4), tmp_path)
    assert service.asked == [["0", "1", "2", "3"], ["1", "3"]]
    assert (tally.accepted, dict(tally.refused)) == (2, {"invalid": 2})
    assert [each["line"] for each in tally.examples] == [0, 3]


def test_what_is_too_large_together_is_sent_apart(tmp_path):
    service = Service(httpx.Response(413), accepted(2), httpx.Response(413), accepted(1), httpx.Response(413))
    tally, _ = run(service, lines(4), tmp_path)
    assert service.asked == [["0", "1", "2", "3"], ["0", "1"], ["2", "3"], ["2"], ["3"]]
    assert (tally.accepted, tally.refused.total(), tally.examples[0]["line"]) == (3, 1, 3)


def test_what_one_tenant_may_not_send_together_is_sent_apart(tmp_path):
    """A burst that is smaller than a batch refuses all events of the tenant, though each of them may pass."""
    service = Service(
        accepted(6, (0, "too-large"), (1, "invalid"), (2, "too-large"), (4, "rate-limited"), (5, "too-large")),
        accepted(1),
        accepted(2, (0, "too-large"), (1, "too-large")),
        accepted(1),
        accepted(1, (0, "too-large")),
        accepted(1),
    )
    tally, _ = run(service, lines(6), tmp_path)
    assert service.asked == [["0", "1", "2", "3", "4", "5"], ["0"], ["2", "5"], ["2"], ["5"], ["4"]]
    assert (tally.accepted, dict(tally.refused)) == (4, {"invalid": 1, "too-large": 1})
    assert [each["line"] for each in tally.examples] == [1, 5]


def test_a_cut_import_goes_on_behind_what_was_answered(tmp_path):
    away = [httpx.ConnectError("away")] * 50
    service = Service(accepted(BATCH), *away)
    with pytest.raises(Unreachable) as failure:
        run(service, lines(BATCH * 2), tmp_path, patience=0)
    assert "--resume" in (failure.value.next_step or "")
    journal = Journal(source(tmp_path / "file", "content"), [], directory=tmp_path)
    assert journal.next_line() == BATCH
    again = Service()
    tally, journal = run(again, lines(BATCH * 2), tmp_path, first=journal.next_line())
    assert (again.asked[0][0], tally.sent) == (str(BATCH), BATCH)
    assert journal.next_line() == 0


def test_the_journal_stays_behind_the_oldest_batch_that_is_open(tmp_path):
    """The second batch is answered and the first is not: a resumed import begins with the first."""
    service = Service(httpx.ConnectError("away"), accepted(BATCH))
    with pytest.raises(Unreachable):
        run(service, lines(BATCH * 2), tmp_path, at_once=2, patience=-1)
    assert Journal(source(tmp_path / "file", "content"), [], directory=tmp_path).next_line() == 0


def test_another_file_or_other_options_have_another_journal(tmp_path):
    one, other = source(tmp_path / "a", "a"), source(tmp_path / "b", "b")
    Journal(one, ["x"], directory=tmp_path).keep(5)
    assert Journal(one, ["x"], directory=tmp_path).next_line() == 5
    assert Journal(one, ["y"], directory=tmp_path).next_line() == 0
    assert Journal(other, ["x"], directory=tmp_path).next_line() == 0


def test_a_refused_request_ends_the_import_with_its_reason(tmp_path):
    service = Service(httpx.Response(403, json={"title": "No", "detail": "not yours"}))
    with pytest.raises(CommandFailed, match="No: not yours"):
        run(service, lines(1), tmp_path)


def test_a_token_that_has_ended_is_renewed_once(tmp_path):
    service = Service(httpx.Response(401))
    assert run(service, lines(1), tmp_path)[0].accepted == 1
    assert len(service.asked) == 2
