"""Waiting with a deadline."""

import pytest

from tenantry.testing import eventually


async def test_the_true_answer_is_returned():
    answers = iter([0, None, "yes"])
    assert await eventually(lambda: next(answers), within=5, interval=0) == "yes"


async def test_async_conditions_and_assertions():
    left = [1, 2]

    async def condition():
        left.pop()
        assert not left
        return True

    assert await eventually(condition, within=5, interval=0)


async def test_the_deadline_names_the_last_answer():
    with pytest.raises(AssertionError, match=r"0\.01 s: not yet") as failure:
        await eventually(lambda: _fail("not yet"), within=0.01, interval=0.001)
    assert failure.value.__cause__ is not None


async def test_other_errors_pass():
    with pytest.raises(ZeroDivisionError):
        await eventually(lambda: 1 / 0, within=5)


def _fail(reason):
    raise AssertionError(reason)
