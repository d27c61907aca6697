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


@pytest.mark.parametrize(
    ("login", "missing"),
    [
        ({"kafka_sasl_username": "app"}, "TENANTRY_KAFKA_SASL_PASSWORD"),
        ({"kafka_sasl_username": "app", "kafka_sasl_password": ""}, "TENANTRY_KAFKA_SASL_PASSWORD"),
        ({"kafka_sasl_password": "secret"}, "TENANTRY_KAFKA_SASL_USERNAME"),
    ],
)
@pytest.mark.parametrize("protocol", ["SASL_PLAINTEXT", "SASL_SSL"])
def test_half_a_login_is_refused_and_named(login, missing, protocol):
    with pytest.raises(ValidationError, match=f"{missing} is not set"):
        KafkaSettings(kafka_security_protocol=protocol, **login)
    KafkaSettings(**login)
