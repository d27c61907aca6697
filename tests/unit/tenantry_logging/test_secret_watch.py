"""The watch over the whole suite sees a secret that is logged, and what redaction hides it does not take for one."""

import logging

import pytest
import structlog
from secret_watch import watched, watching

SECRET = watched("a-secret-of-a-fixture")


@pytest.fixture(autouse=True)
def _no_secret_is_logged():
    """Here one is logged on purpose."""


@pytest.mark.parametrize(
    "log",
    [
        lambda: structlog.get_logger("some.module").info("said", word=SECRET),
        lambda: structlog.get_logger("some.module").info(SECRET),
        lambda: logging.getLogger("other").warning("said %s", SECRET),
    ],
)
def test_a_secret_in_a_record_is_found(log):
    structlog.reset_defaults()
    with watching() as found:
        log()
    assert found


def test_what_redaction_hides_is_not():
    structlog.reset_defaults()
    with watching() as found:
        structlog.get_logger().info("said", authorization=SECRET, error=f"password={SECRET}")
        logging.getLogger("other").warning("Bearer %s", SECRET)
    assert not found


def test_what_a_test_captures_is_looked_at_too():
    structlog.reset_defaults()
    with watching() as found, structlog.testing.capture_logs() as logs:
        structlog.get_logger().info("said", word=SECRET)
    assert logs[0]["word"] == SECRET
    assert found
