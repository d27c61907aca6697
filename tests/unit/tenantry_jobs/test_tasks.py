"""Tasks: their arguments on the way through an envelope, and what is said of their failures."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenantry import Conflict, NotFound, RateLimited, Unavailable
from tenantry.jobs import Job, Jobs, JobSettings, RetryStrategy, UnreadableJob
from tenantry.jobs._failure import WorkerLost, describe, next_attempt


class Colour(StrEnum):
    RED = "red"


jobs = Jobs()


@jobs.task("paint", retry=RetryStrategy(max_attempts=2, wait=60))
async def paint(job: Job, wall: UUID, at: datetime, *, colour: Colour, amount: Decimal, coats: int = 2) -> None: ...


@given(
    wall=st.uuids(),
    at=st.datetimes(timezones=st.just(UTC)),
    amount=st.decimals(allow_nan=False, allow_infinity=False),
    coats=st.integers(-(2**53), 2**53),
)
def test_arguments_come_out_as_they_went_in(wall, at, amount, coats):
    packed = paint.pack(wall, at, colour=Colour.RED, amount=amount, coats=coats)
    assert paint.unpack(packed) == {
        "wall": wall,
        "at": at,
        "colour": Colour.RED,
        "amount": amount,
        "coats": coats,
    }


def test_what_has_a_default_may_be_left_out():
    packed = paint.pack(UUID(int=1), datetime.now(UTC), colour=Colour.RED, amount=Decimal(1))
    assert "coats" not in packed
    assert paint.unpack(packed)["coats"] == 2


@pytest.mark.parametrize("changed", [{"wall": "canary"}, {"coats": "canary"}, {"brush": "canary"}, {"wall": None}])
def test_other_arguments_cannot_be_read_and_are_not_repeated(changed):
    packed = paint.pack(UUID(int=1), datetime.now(UTC), colour=Colour.RED, amount=Decimal(1))
    with pytest.raises(UnreadableJob) as refused:
        paint.unpack({**packed, **changed})
    assert "canary" not in str(refused.value)


def test_a_task_is_an_async_function_with_named_and_typed_arguments():
    def plain(job: Job) -> None: ...

    async def untyped(job, wall): ...

    async def unnamed(job: Job, *walls: UUID) -> None: ...

    async def positional(job: Job, wall: UUID, /) -> None: ...

    for function in (plain, untyped, unnamed, positional):
        with pytest.raises(TypeError):
            Jobs().task("x")(function)  # type: ignore[arg-type]


def test_a_name_belongs_to_one_task():
    with pytest.raises(ValueError, match="two tasks paint"):
        jobs.task("paint")(paint._function)


def fail(error):
    raise error


def raised(error):
    with pytest.raises(type(error)) as caught:
        fail(error)
    return caught.value


def test_what_is_expected_is_told_in_its_own_words():
    assert describe(raised(NotFound("There is no such wall."))) == ("not-found", "There is no such wall.")
    assert describe(raised(Unavailable("The shop is closed."))) == ("unavailable", "The shop is closed.")


def test_of_anything_else_its_class_and_place_are_told_and_no_word_of_it():
    told = describe(raised(KeyError("canary")))
    assert told.type == "internal-error"
    assert told.text.startswith("KeyError at test_tasks.py:")
    assert "canary" not in told.text


def seconds_until(at):
    return None if at is None else round((at - datetime.now(UTC)) / timedelta(seconds=1))


def test_attempts_follow_the_strategy_and_end():
    assert [seconds_until(next_attempt(paint, ValueError(), made)) for made in (0, 1, 2)] == [60, 60, None]
    assert next_attempt(paint, WorkerLost(), 2) is None


@pytest.mark.parametrize("error", [NotFound(), Conflict()])
def test_what_is_lasting_is_not_tried_again(error):
    assert next_attempt(paint, error, 0) is None


@pytest.mark.parametrize("error", [RateLimited(retry_after=900), Unavailable(retry_after=900)])
def test_whoever_says_when_is_not_asked_before(error):
    assert seconds_until(next_attempt(paint, error, 0)) == 900


def test_code_that_cannot_read_a_job_may_be_old():
    assert next_attempt(None, UnreadableJob(), 0) is not None


def test_settings_that_contradict_themselves_are_refused():
    with pytest.raises(ValueError, match="two heartbeats"):
        JobSettings(heartbeat_seconds=5, lost_after_seconds=10)
    with pytest.raises(ValueError, match="reserve"):
        JobSettings(concurrency=4, reserve=4)
