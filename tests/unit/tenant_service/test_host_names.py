import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenant_service.domain.host_names import check_claimable, normalise_email, normalise_host_name


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Example.COM", "example.com"),
        ("example.com.", "example.com"),
        ("bücher.de", "xn--bcher-kva.de"),
        ("XN--BCHER-KVA.de", "xn--bcher-kva.de"),
        ("\uff25xample.com", "example.com"),
        ("straße.de", "xn--strae-oqa.de"),
        ("a.b-c.example.com", "a.b-c.example.com"),
    ],
)
def test_names_have_one_spelling(text, name):
    assert normalise_host_name(text) == name
    assert normalise_host_name(name) == name


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "com",
        "com.",
        "1.2.3.4",
        "::1",
        "[::1]",
        "0x7f.1",
        "a_b.com",
        "-a.com",
        "a-.com",
        "a..b",
        ".a.com",
        "*.example.com",
        "ex ample.com",
        "example.com/path",
        "http://example.com",
        "user@example.com",
        "example.com:80",
        "example.com\n",
        "exa\x00mple.com",
        "xn--zzzzzzzz99999999.com",
        "x" * 64 + ".com",
        ".".join(["x" * 60] * 5),
    ],
)
def test_what_is_no_host_name(text):
    with pytest.raises(ValueError, match="host name"):
        normalise_host_name(text)


@given(st.text(max_size=300))
def test_any_text_is_a_name_or_a_reason(text):
    try:
        name = normalise_host_name(text)
    except ValueError:
        return
    assert name == name.lower()
    assert name.isascii()
    assert normalise_host_name(name) == name


@pytest.mark.parametrize(
    "domain",
    [
        "apps.example.com",
        "acme.apps.example.com",
        "ACME.Apps.Example.com.",
        "a.localhost",
        "intranet.local",
        "x.test",
        "a.onion",
        "a.internal",
    ],
)
def test_what_nobody_may_claim(domain):
    with pytest.raises(ValueError, match=r"platform|special use"):
        check_claimable(domain, ["Apps.Example.com."])


@pytest.mark.parametrize("domain", ["example.com", "notapps.example.com", "apps.example.org"])
def test_neighbours_of_the_platform_may_be_claimed(domain):
    assert check_claimable(domain, ["apps.example.com"]) == domain


@pytest.mark.parametrize(
    ("text", "address"),
    [
        (" Ann@Example.ORG ", "ann@example.org"),
        ("ann+tag@example.org", "ann+tag@example.org"),
        ("a@bücher.de", "a@xn--bcher-kva.de"),
        ("\uff21nn@example.org", "ann@example.org"),
        ("o'neil@example.org", "o'neil@example.org"),
    ],
)
def test_addresses_have_one_spelling(text, address):
    assert normalise_email(text) == address
    assert normalise_email(address) == address


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ann",
        "@example.org",
        "ann@",
        "ann@org",
        "ann@@example.org",
        "an n@example.org",
        "ann@exa mple.org",
        "ann@1.2.3.4",
        "ann\x00@example.org",
        "ann\r\nBcc: x@example.org",
        "<ann@example.org>",
        "ann@example.org, bob@example.org",
        "a" * 65 + "@example.org",
    ],
)
def test_what_is_no_address(text):
    with pytest.raises(ValueError, match="not an e-mail address"):
        normalise_email(text)
