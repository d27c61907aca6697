"""What a directory believes of what a company's source lists."""

from datetime import UTC, datetime
from uuid import UUID, uuid4, uuid5

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenantry import LocalDirectory, Operation, TenantStatus, TenantSuspended, Tier, admit
from tenantry.directory import TENANT_KEYS, InvalidListing, Listing, TenantFields, id_of
from tenantry.directory._listing import ListedTenants

FIELDS = TenantFields()


def test_a_uuid_is_the_id_and_any_other_key_has_a_stable_one():
    given_id = uuid4()
    assert FIELDS.tenant({"id": given_id}).id == FIELDS.tenant({"id": str(given_id).upper()}).id == given_id
    assert FIELDS.tenant({"id": given_id}).external_id is None
    by_number, by_text = FIELDS.tenant({"id": 41}), FIELDS.tenant({"id": "41"})
    assert by_number.id == by_text.id == uuid5(TENANT_KEYS, "41") == UUID("c7272344-f6ee-5bdf-b262-f928f7fc7d3d")
    assert by_number.external_id == by_number.slug == by_number.name == "41"


@given(st.text(min_size=1).filter(str.strip))
def test_only_the_canonical_text_of_a_uuid_is_one(key):
    tenant_id, is_id = id_of(key)
    assert is_id == (str(tenant_id) == key.lower())


@pytest.mark.parametrize("key", ["{%s}", "urn:uuid:%s"])
def test_other_spellings_of_a_uuid_are_keys(key):
    assert not id_of(key % uuid4())[1]


def test_fields_have_the_companys_names():
    fields = TenantFields(id="org", slug="subdomain", status="state", statuses={"frozen": TenantStatus.SUSPENDED})
    tenant = fields.tenant(
        {
            "org": 7,
            "subdomain": "acme",
            "name": "Acme",
            "state": "frozen",
            "tier": "pro",
            "region": "eu",
            "domains": ["Docs.Acme.example."],
            "created_at": "2026-01-02T03:04:05Z",
        }
    )
    assert (tenant.slug, tenant.name, tenant.tier, tenant.region) == ("acme", "Acme", "pro", "eu")
    assert tenant.domains == ("docs.acme.example",)
    assert tenant.status is TenantStatus.SUSPENDED
    assert tenant.created_at == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def test_a_state_that_nobody_has_explained_stops_the_tenant():
    with pytest.raises(TenantSuspended, match="unknown state limbo"):
        admit(FIELDS.tenant({"id": 1, "status": "limbo"}), Operation.READ)
    admit(FIELDS.tenant({"id": 1, "status": "active"}), Operation.WRITE)
    admit(FIELDS.tenant({"id": 1}), Operation.WRITE)


@pytest.mark.parametrize(
    "record", [{}, {"id": " "}, {"id": 1.5}, {"id": True}, {"id": 1, "domains": [1]}, {"id": 1, "created_at": "x"}]
)
def test_what_cannot_be_read_is_refused(record):
    with pytest.raises((ValueError, TypeError)):
        FIELDS.tenant(record)


class Directory:
    def __init__(self):
        self.local = LocalDirectory()
        self._listed = ListedTenants(self.local, FIELDS)

    async def take(self, *records, complete=True, tiers=None):
        return await self._listed.take(Listing(records=records, complete=complete, tiers=tiers))

    @property
    def known(self):
        return {tenant.external_id: tenant.slug for tenant in self.local}


@pytest.fixture
def directory():
    return Directory()


async def test_a_tenant_goes_only_when_a_complete_listing_is_without_it(directory):
    await directory.take({"id": 1}, {"id": 2})
    await directory.take({"id": 2, "slug": "two"}, complete=False)
    assert directory.known == {"1": "1", "2": "two"}
    await directory.take({"id": 2, "slug": "two"})
    assert directory.known == {"2": "two"}
    assert not directory.local.is_purged(id_of("1")[0])
    await directory.take({"id": 1}, {"id": 2})
    assert set(directory.known) == {"1", "2"}


async def test_nothing_goes_while_a_record_cannot_be_read(directory):
    await directory.take({"id": 1}, {"id": 2})
    assert await directory.take({"id": 1}, {"id": 1.5}) == 1
    assert set(directory.known) == {"1", "2"}


async def test_an_empty_listing_is_not_believed(directory):
    await directory.take()
    await directory.take({"id": 1})
    with pytest.raises(InvalidListing):
        await directory.take()
    await directory.take(complete=False)
    assert set(directory.known) == {"1"}


async def test_what_has_not_changed_changes_nothing(directory):
    await directory.take({"id": 1, "slug": "a"})
    before, known = directory.local.version, directory.local.resolve("1")
    await directory.take({"id": 1, "slug": "a"})
    assert directory.local.version == before
    assert directory.local.resolve("1") is known
    await directory.take({"id": 1, "slug": "a", "status": "suspended"})
    assert directory.local.version > before
    assert directory.local.resolve("1").version > known.version


async def test_a_name_that_two_tenants_claim_stays_with_the_one_that_had_it(directory):
    await directory.take({"id": 1, "slug": "a"}, {"id": 2, "slug": "b"})
    for complete in (True, False):
        assert await directory.take({"id": 1, "slug": "a"}, {"id": 3, "slug": "a"}, complete=complete) == 1
        assert directory.known == {"1": "a", "2": "b"}
    assert await directory.take({"id": 3, "slug": "a"}, complete=False) == 1
    assert await directory.take({"id": 3, "slug": "c", "external_id": "1"}, complete=False) == 1
    assert directory.known == {"1": "a", "2": "b"}


async def test_the_order_of_a_listing_gives_nobody_anothers_name(directory):
    await directory.take({"id": 1, "slug": "a"})
    assert await directory.take({"id": 3, "slug": "a"}, {"id": 1, "slug": "a"}) == 1
    assert directory.known == {"1": "a"}
    assert directory.local.by_slug("a").external_id == "1"


async def test_the_name_of_one_who_has_gone_is_free(directory):
    await directory.take({"id": 1, "slug": "a"}, {"id": 2, "slug": "b"})
    assert await directory.take({"id": 3, "slug": "a"}, {"id": 2, "slug": "b"}) == 0
    assert directory.known == {"3": "a", "2": "b"}
    assert directory.local.by_slug("a").external_id == "3"


async def test_names_can_be_exchanged(directory):
    await directory.take({"id": 1, "slug": "a"}, {"id": 2, "slug": "b"})
    await directory.take({"id": 1, "slug": "b"}, {"id": 2, "slug": "a"})
    assert directory.local.by_slug("a").external_id == "2"
    assert directory.local.by_slug("b").external_id == "1"


async def test_tiers_come_along(directory):
    await directory.take({"id": 1}, tiers=[Tier(name="standard", version=1, limits={"connections": 3})])
    await directory.take({"id": 1}, tiers=[Tier(name="standard", version=1, limits={"connections": 5})])
    assert directory.local.tier("standard").limits == {"connections": 5}
