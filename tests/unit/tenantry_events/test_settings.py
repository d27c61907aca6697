"""What groups and transactional ids are called on the cluster."""

import pytest
from pydantic import ValidationError

from tenantry.events import KafkaSettings


def test_deployments_share_topics_and_neither_groups_nor_fences():
    one, eu, us = (KafkaSettings(topic_prefix="p.", deployment=name) for name in ("", "eu", "us"))
    assert {each.topic("t.v1") for each in (one, eu, us)} == {"p.t.v1"}
    assert [each.group("app-requests") for each in (one, eu, us)] == [
        "p.app-requests", "p.app-requests.eu", "p.app-requests.us"
    ]  # fmt: skip
    ids = [each.transactional_id("app-outbox-0") for each in (one, eu, us)]
    assert len(set(ids)) == 3
    # Rights are given for all that begins so.
    assert all(each.startswith("p.app-") for each in ids)


def test_a_deployment_is_a_plain_word():
    with pytest.raises(ValidationError):
        KafkaSettings(deployment="eu/1")
