"""What is said of a URL, and of an error, has no password in it."""

from urllib.parse import urlsplit

import pytest

from tenantry.doctor._place import place_of, without_password

URL = "postgresql://shop:s3cret%2Fword@db.example:5432/shop?sslpassword=k3y"


def test_a_place_has_no_password():
    assert place_of(URL) == "shop@db.example/shop"


@pytest.mark.parametrize("secret", ["s3cret%2Fword", "s3cret/word", "k3y"])
def test_an_error_that_quotes_a_password_is_cut(secret):
    assert without_password(ValueError(f"invalid dsn: {secret}!"), urlsplit(URL)) == "invalid dsn: ***!"
