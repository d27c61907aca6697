"""Slugs and external ids."""

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenant_service.domain.identifiers import RESERVED_SLUGS, check_external_id, check_slug


@pytest.mark.parametrize("slug", ["ab", "acme", "acme-2", "0-9", "a" * 63])
def test_slugs(slug):
    assert check_slug(slug) == slug


@pytest.mark.parametrize(
    "slug",
    [
        "",
        "a",
        "A-b",
        "acme_",
        "-acme",
        "acme-",
        "ac.me",
        "xn--acme",
        "ac--me",
        "a" * 64,
        "ácme",
        "acme\n",
        "²x",
        *sorted(RESERVED_SLUGS)[:3],
    ],
)
def test_no_slugs(slug):
    with pytest.raises(ValueError, match="slug"):
        check_slug(slug)


@pytest.mark.parametrize("external_id", ["org-4711", "Zürich", "a", "x" * 128, "42", "with space"])
def test_external_ids(external_id):
    assert check_external_id(external_id) == external_id


@pytest.mark.parametrize("external_id", ["", "x" * 129, "a\x00b", "a\nb", " a", "a ", "a\u200b"])
def test_no_external_ids(external_id):
    with pytest.raises(ValueError, match="external id"):
        check_external_id(external_id)


@given(
    st.uuids(), st.sampled_from([str, lambda u: str(u).upper(), lambda u: u.hex, lambda u: u.urn, lambda u: f"{{{u}}}"])
)
def test_no_spelling_of_a_uuid_is_an_external_id(uuid: UUID, spelling):
    with pytest.raises(ValueError, match="UUID"):
        check_external_id(spelling(uuid))


@given(st.uuids(), st.sampled_from([str, lambda u: u.hex]))
def test_no_spelling_of_a_uuid_is_a_slug(uuid: UUID, spelling):
    """A command line that is given one takes the tenant with that id."""
    with pytest.raises(ValueError, match="a UUID"):
        check_slug(spelling(uuid))
