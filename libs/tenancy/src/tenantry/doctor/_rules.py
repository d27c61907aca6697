"""What the doctor looks for. The numbers are stable: people write them into baselines.

1xx roles and settings, 2xx row level security and policies, 3xx ways around a table, 4xx keys, 5xx indexes, 6xx what a
move to Citus would meet, 7xx the reading itself.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Grade(StrEnum):
    """What a finding means; the order is that of weight."""

    ISOLATION = "isolation"
    """A tenant reaches rows of another, or one ordinary mistake would let it."""
    PERFORMANCE = "performance"
    """Slow, or needless errors in operation."""
    CITUS = "citus"
    """Harmless here; in the way of distributing the table by tenant."""
    INFO = "info"
    """Nothing wrong by itself: somebody should know it."""

    @property
    def weight(self) -> int:
        return (Grade.INFO, Grade.CITUS, Grade.PERFORMANCE, Grade.ISOLATION).index(self)


@dataclass(frozen=True, slots=True)
class Rule:
    """One thing to look for. `why` says what can happen and `remedy` what to do, each in plain words."""

    id: str
    grade: Grade
    title: str
    why: str
    remedy: str


_I, _P, _C, _N = Grade.ISOLATION, Grade.PERFORMANCE, Grade.CITUS, Grade.INFO

RULES: Final = {
    rule.id: rule
    for rule in (
        Rule(
            "TD101",
            _I,
            "The application's role bypasses row level security",
            "A superuser and a role with BYPASSRLS are asked no policy, and a member of one can become it.",
            "Let the application connect as a role with NOSUPERUSER NOBYPASSRLS that is a member of no such role.",
        ),
        Rule(
            "TD102",
            _I,
            "The application's role owns tenant tables",
            "An owner is asked no policy without FORCE, and with it may still drop policies or switch them off.",
            "Give the tables to a role that cannot log in, and the application's role only the privileges it needs.",
        ),
        Rule(
            "TD103",
            _I,
            "The application's role is a member of the owner of tenant tables",
            "A member has the owner's rights or can take them with SET ROLE, and so is asked no policy without FORCE.",
            "Revoke the membership; only the role that runs migrations needs it.",
        ),
        Rule(
            "TD104",
            _I,
            "The application's role may create roles",
            "CREATEROLE is enough to become a member of other roles, the owner of the tables among them.",
            "ALTER ROLE ... NOCREATEROLE.",
        ),
        Rule(
            "TD105",
            _N,
            "Another role that can log in gets around the policies",
            "It was not seen in use: a backup or a migration may need it, a service must not have it.",
            "Keep its credential out of every service; say --app-role if the application does use it.",
        ),
        Rule(
            "TD106",
            _I,
            "A role or database setting gives every session a tenant",
            "A request that forgets to set its tenant works on the default one's rows instead of seeing nothing.",
            "ALTER ROLE / ALTER DATABASE ... RESET of the setting.",
        ),
        Rule(
            "TD107",
            _N,
            "A role sees the rows of all tenants by policy",
            "Policies USING (true) for this role alone are the usual way for workers of many tenants.",
            "Use the role only for work of many tenants, with a connection of its own.",
        ),
        Rule(
            "TD108",
            _I,
            "One role reaches the schemas of all tenants",
            "Only the search_path keeps the tenants apart: one qualified name, or one path that is left over on a "
            "pooled connection, reads another tenant.",
            "A role for each tenant (SET LOCAL ROLE in the transaction), or row level security in the schemas too.",
        ),
        Rule(
            "TD201",
            _I,
            "A tenant table without row level security",
            "Nothing but each query's own WHERE keeps tenants apart: one that forgets it reads everybody.",
            "ENABLE and FORCE row level security and create a policy that compares the tenant column.",
        ),
        Rule(
            "TD202",
            _I,
            "Row level security is not forced",
            "The owner of the table, and each function and view that runs with its rights, is asked no policy.",
            "ALTER TABLE ... FORCE ROW LEVEL SECURITY.",
        ),
        Rule(
            "TD203",
            _N,
            "Row level security without a permissive policy",
            "Nobody who is asked a policy sees a row; restrictive policies only ever take away.",
            "Create the tenant policy, or drop what is not used.",
        ),
        Rule(
            "TD204",
            _I,
            "A policy that is always true",
            "Permissive policies are joined by OR: one that is always true opens the table whatever the others say.",
            "Drop the policy, or give it TO a role of its own that no request uses.",
        ),
        Rule(
            "TD205",
            _I,
            "A policy that opens when no tenant is set",
            "A job, a console or a request that forgot to set its tenant sees the rows of everybody.",
            "Compare only: with no tenant set the comparison is NULL, and nothing is seen.",
        ),
        Rule(
            "TD206",
            _I,
            "A policy with a default tenant",
            "A session without a tenant works on the rows of one tenant as if it were that one.",
            "Take the default out: NULLIF(current_setting(name, true), '') and nothing around it.",
        ),
        Rule(
            "TD207",
            _I,
            "A policy with a way past the tenant comparison",
            "The alternative does not compare the tenant; a setting, in particular, can be set by whoever can run SQL.",
            "Give that use a role and a policy of its own, or a RESTRICTIVE tenant policy beside it.",
        ),
        Rule(
            "TD208",
            _I,
            "A permissive policy that does not compare the tenant",
            "Permissive policies are joined by OR: this one shows rows of every tenant that fulfil its own condition.",
            "Compare the tenant column in it, or make it RESTRICTIVE beside a tenant policy.",
        ),
        Rule(
            "TD209",
            _I,
            "A policy that lets rows be written for others",
            "What a tenant writes there belongs to another tenant, or is seen by all.",
            "WITH CHECK the same comparison of the tenant column as USING.",
        ),
        Rule(
            "TD210",
            _P,
            "A policy raises when no tenant is set",
            "current_setting(name) is an error where the setting was never made: a health check or a job fails "
            "instead of seeing nothing.",
            "current_setting(name, true).",
        ),
        Rule(
            "TD211",
            _P,
            "A policy casts an empty setting",
            "After a transaction that set it locally the setting reads '' and not NULL: the next unbound statement on "
            "that connection fails in the cast.",
            "NULLIF(current_setting(name, true), '')::type.",
        ),
        Rule(
            "TD212",
            _P,
            "A policy reads another table",
            "Every statement pays for the sub-select, and the other table's own policies are asked as well.",
            "Keep the tenant column in the table itself and compare it with the setting.",
        ),
        Rule(
            "TD213",
            _P,
            "A policy wraps the tenant column",
            "An index on the column does not serve a comparison of a cast or function of it.",
            "Cast the setting to the type of the column instead.",
        ),
        Rule(
            "TD214",
            _P,
            "A policy calls a function for each row",
            "Where the policy is a filter the function runs once a row that is looked at.",
            "Wrap the call in a sub-select, (SELECT f()), so that it runs once a statement.",
        ),
        Rule(
            "TD215",
            _N,
            "A privilege that no policy allows to use",
            "Row level security refuses what no permissive policy covers: the statement fails, or changes nothing.",
            "A policy FOR ALL, or revoke the privilege.",
        ),
        Rule(
            "TD216",
            _I,
            "The tenant column may be NULL",
            "A row without a tenant passes every composite foreign key unchecked, and no export or purge finds it.",
            "ALTER TABLE ... ALTER COLUMN ... SET NOT NULL.",
        ),
        Rule(
            "TD217",
            _N,
            "A policy that could not be read",
            "Its expression was not understood, so nothing is said about it.",
            "Look at it by hand.",
        ),
        Rule(
            "TD218",
            _N,
            "A tenant table without row level security, out of the application's reach",
            "Its rows belong to tenants and nothing keeps them apart, for the roles that may read it.",
            "Keep it so: row level security as well, if a request is ever to read it.",
        ),
        Rule(
            "TD301",
            _I,
            "A view with its owner's rights over tenant rows",
            "The policies are asked for the owner of the view and not for the one who reads it.",
            "ALTER VIEW ... SET (security_invoker = true).",
        ),
        Rule(
            "TD302",
            _I,
            "A materialized view of tenant rows",
            "It holds a copy, and row level security does not exist for it: who may read it reads all tenants.",
            "Revoke it from the application, or make it a table with policies.",
        ),
        Rule(
            "TD303",
            _I,
            "A partition or child table can be read past its parent's policies",
            "Only the policies of the table that a statement names are asked.",
            "Revoke all privileges on it: they are needed on the parent only.",
        ),
        Rule(
            "TD304",
            _I,
            "A foreign table with tenant rows",
            "Row level security does not exist for foreign tables.",
            "Revoke it from the application, or read it through a view that compares the tenant.",
        ),
        Rule(
            "TD305",
            _I,
            "A SECURITY DEFINER function reads tenant tables past the policies",
            "It runs with the rights of its owner, whom the policies do not hold.",
            "SECURITY INVOKER, or an owner that policies hold.",
        ),
        Rule(
            "TD306",
            _I,
            "A SECURITY DEFINER function without a safe search_path",
            "Whoever calls it decides which tables and operators its text means, and they run with the owner's rights.",
            "ALTER FUNCTION ... SET search_path = the schemas it needs, pg_temp.",
        ),
        Rule(
            "TD307",
            _I,
            "TRUNCATE, REFERENCES or TRIGGER on a tenant table",
            "None of them asks a policy: TRUNCATE removes all tenants' rows, a foreign key tells which keys exist, a "
            "trigger sees every row that is written.",
            "REVOKE TRUNCATE, REFERENCES, TRIGGER.",
        ),
        Rule(
            "TD308",
            _I,
            "Everybody has rights on tenant rows",
            "A grant to PUBLIC holds for each role that there is or will be.",
            "REVOKE ALL ... FROM PUBLIC and grant to the roles that need it.",
        ),
        Rule(
            "TD309",
            _I,
            "Default privileges that get around policies",
            "Every table to come, each partition included, is granted before it has a policy.",
            "ALTER DEFAULT PRIVILEGES ... REVOKE, and grant table by table.",
        ),
        Rule(
            "TD310",
            _N,
            "Tenant rows are published by logical replication",
            "A subscriber gets the rows of all tenants: policies are not asked.",
            "Know who subscribes.",
        ),
        Rule(
            "TD401",
            _I,
            "A foreign key without the tenant column",
            "The check bypasses row level security: a row may point at another tenant's, and shows that it exists.",
            "FOREIGN KEY (tenant, parent) REFERENCES parent (tenant, id), with a unique key like that on the parent.",
        ),
        Rule(
            "TD402",
            _I,
            "A unique key without the tenant column",
            "The check bypasses row level security: a conflict tells one tenant what another has.",
            "Put the tenant column first in the key.",
        ),
        Rule(
            "TD501",
            _P,
            "A large tenant table without an index that begins with the tenant column",
            "Each statement of a tenant reads the rows of all.",
            "CREATE INDEX CONCURRENTLY ... (tenant, ...).",
        ),
        Rule(
            "TD502",
            _P,
            "An index of a large tenant table that does not begin with the tenant column",
            "Every query compares the tenant too: the index finds the rows of all tenants first.",
            "Build it anew with the tenant column first.",
        ),
        Rule(
            "TD503",
            _P,
            "An index that a policy keeps from being used",
            "Below a policy only leakproof operators and functions may look at rows, and those of this index are not.",
            "Search by leakproof operators (=, <, ^@) in the tenant's rows, or in a table of one tenant.",
        ),
        Rule(
            "TD601",
            _C,
            "The primary key leaves out the tenant column",
            "A distributed table's keys must contain the column it is distributed by.",
            "PRIMARY KEY (tenant, id).",
        ),
        Rule(
            "TD602",
            _C,
            "A unique key leaves out the tenant column",
            "A distributed table's keys must contain the column it is distributed by.",
            "Add the tenant column, or keep the key in a table that is not distributed.",
        ),
        Rule(
            "TD603",
            _C,
            "A foreign key with the tenant column sets columns on delete",
            "ON DELETE SET NULL and SET DEFAULT are refused where the key has the distribution column.",
            "ON DELETE CASCADE, or none.",
        ),
        Rule(
            "TD604", _C, "A trigger on a tenant table", "Distributed tables have no triggers.", "Do it in the service."
        ),
        Rule(
            "TD605",
            _C,
            "An identity column in a tenant table",
            "It keeps a distributed table from being altered or made local again.",
            "UUIDs made by the application, or bigserial.",
        ),
        Rule(
            "TD606",
            _C,
            "A tenant table without the tenant column",
            "It belongs to tenants only through other tables, so it cannot be distributed by tenant.",
            "Add the column, fill it along the foreign keys, and put it into the keys.",
        ),
        Rule(
            "TD607",
            _C,
            "The tenant column has another type here",
            "Only tables whose tenant columns have one type are kept together.",
            "One type everywhere.",
        ),
        Rule(
            "TD701",
            _N,
            "Not clear whether the table holds rows of tenants",
            "It has no tenant column and no foreign key says what it belongs to: nothing else is checked on it.",
            "Say --shared for reference data, or give it the tenant column.",
        ),
    )
}
