"""Secrets at rest."""

import base64

import pytest

from tenant_service.identity.secrets import MasterKey, MasterKeyError, matches, new_secret, sha256

KEY = base64.b64encode(bytes(range(32))).decode()


def test_a_sealed_text_opens_with_its_key_and_its_name_only():
    key = MasterKey.parse(KEY)
    sealed = key.seal(b"private", "signing key 1")
    assert sealed.ciphertext != b"private"
    assert key.open(sealed, "signing key 1") == b"private"
    with pytest.raises(MasterKeyError):
        key.open(sealed, "signing key 2")
    with pytest.raises(MasterKeyError):
        MasterKey.parse(base64.b64encode(bytes(32)).decode()).open(sealed, "signing key 1")


def test_two_seals_differ():
    key = MasterKey.parse(KEY)
    assert key.seal(b"x", "n") != key.seal(b"x", "n")


@pytest.mark.parametrize("encoded", ["", "short", "!!!", base64.b64encode(bytes(31)).decode(), KEY + "AAAA"])
def test_a_malformed_master_key_is_refused_and_not_repeated(encoded):
    with pytest.raises(MasterKeyError) as refused:
        MasterKey.parse(encoded)
    assert not encoded or encoded not in str(refused.value)


def test_comparison():
    secret = new_secret("tc_")
    assert matches(secret, sha256(secret))
    assert not matches(secret + "x", sha256(secret))
    assert not matches(secret, None)
    # The digest that stands in for nobody's is no one's either.
    assert not matches("", bytes(32))
