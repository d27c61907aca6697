import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenant_service.domain.roles import (
    GRANTED_BY_ADMINS,
    GRANTED_BY_OWNERS,
    LastOwner,
    OwnerRequired,
    Role,
    check_change,
    check_owners,
    grantable_by,
    scopes_of,
)

ROLE_SETS = st.frozensets(st.sampled_from(Role))


@pytest.mark.parametrize(
    ("roles", "scopes"),
    [
        ([Role.OWNER], {"tenant:admin", "tenant:billing"}),
        ([Role.ADMIN], {"tenant:admin", "tenant:billing"}),
        ([Role.MEMBER], {"tenant:write"}),
        ([Role.VIEWER], {"tenant:read"}),
        ([Role.BILLING], {"tenant:billing"}),
        ([Role.VIEWER, Role.BILLING], {"tenant:read", "tenant:billing"}),
        ([], set()),
    ],
)
def test_roles_allow(roles, scopes):
    assert scopes_of(roles) == scopes


@given(ROLE_SETS)
def test_no_role_reaches_beyond_its_tenant(roles):
    assert all(scope.startswith("tenant:") for scope in scopes_of(roles))


def test_who_may_give_which_roles():
    assert grantable_by([Role.OWNER]) == GRANTED_BY_OWNERS
    assert grantable_by([Role.ADMIN]) == GRANTED_BY_ADMINS == set(Role) - {Role.OWNER}
    assert grantable_by([Role.ADMIN, Role.OWNER]) == GRANTED_BY_OWNERS
    for role in (Role.MEMBER, Role.VIEWER, Role.BILLING):
        assert grantable_by([role]) == frozenset()


@given(ROLE_SETS, ROLE_SETS)
def test_an_admin_never_changes_an_owner_nor_makes_one(before, after):
    touches_owner = before != after and Role.OWNER in before | after
    if touches_owner:
        with pytest.raises(OwnerRequired):
            check_change(before, after, grantable=GRANTED_BY_ADMINS)
    else:
        check_change(before, after, grantable=GRANTED_BY_ADMINS)
    check_change(before, after, grantable=GRANTED_BY_OWNERS)


def test_the_last_owner_stays():
    for was, stays, owners in itertools.product((True, False), (True, False), (1, 2)):
        if was and not stays and owners == 1:
            with pytest.raises(LastOwner):
                check_owners(was_owner=was, stays_owner=stays, owners=owners)
        else:
            check_owners(was_owner=was, stays_owner=stays, owners=owners)
