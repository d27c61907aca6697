"""The mutants. Each takes one guard away where one guard holds, and all of them where several do."""

from typing import Final

from tenantry_dev.mutants._mutant import Change, Mutant

_LIBRARY: Final = "libs/tenancy/src/tenantry"
_DATABASE: Final = f"{_LIBRARY}/database"
_IDENTITY: Final = f"{_LIBRARY}/identity"
_TENANT: Final = "services/tenant/src/tenant_service"
_SECURITY: Final = "tests/security"
_UNIT: Final = "tests/unit"


def _mutant(threat: str, what: str, tests: str, *changes: Change) -> Mutant:
    return Mutant(threat, what, tests, changes)


MUTANTS: Final = (
    _mutant(
        "T1",
        "another tenant in the path is let through",
        f"{_SECURITY}/test_t01_object_access.py",
        Change(
            f"{_TENANT}/dependencies.py",
            "if principal.tenant_id != tenant_id and not principal.acts_for_any_tenant:",
            "if False:",
        ),
    ),
    _mutant(
        "T1",
        "an id below the tenant is looked up without it",
        f"{_SECURITY}/test_t01_object_access.py",
        Change(
            f"{_TENANT}/support/service.py",
            "select(SupportGrantRow).where(SupportGrantRow.id == grant_id, SupportGrantRow.tenant_id == tenant_id)",
            "select(SupportGrantRow).where(SupportGrantRow.id == grant_id)",
        ),
    ),
    _mutant(
        "T1",
        "the policy of tables is true for every row",
        "tests/isolation/test_tables.py::test_a_bound_session_sees_its_own_rows_only",
        Change(
            f"{_DATABASE}/_policies.py",
            'return f"{quote(column.name)} = (SELECT {setting}::{column.type})"',
            'return f"{quote(column.name)} = {quote(column.name)}"',
        ),
    ),
    _mutant(
        "T1",
        "the ORM asks without the tenant's predicate",
        "tests/integration/orgs/test_isolation.py",
        Change(
            f"{_DATABASE}/_criteria.py",
            "if state.is_insert or not state.is_orm_statement or not isinstance(session, BoundSession):",
            "if True:",
        ),
    ),
    _mutant(
        "T1",
        "the ORM takes rows of another tenant",
        "tests/integration/orgs/test_isolation.py",
        Change(f"{_DATABASE}/_criteria.py", "elif str(owner) != str(binding.key):", "elif False:"),
    ),
    _mutant(
        "T1",
        "a statement inserts rows of another tenant",
        "tests/integration/orgs/test_isolation.py",
        Change(f"{_DATABASE}/_guard.py", "if binding is not None and context.isinsert:", "if False:"),
    ),
    _mutant(
        "T1",
        "billing reads with the rights of the system",
        f"{_SECURITY}/test_t01_usage_and_billing.py",
        Change(
            "services/billing/src/billing_service/dependencies.py",
            "async with tenancy.databases.tenant_session(tenant, read_only=True) as session:",
            "async with tenancy.databases.system_session() as session:",
        ),
    ),
    _mutant(
        "T2",
        "a child's key names its parent without the tenant",
        f"{_SECURITY}/test_t02_parents.py",
        Change(
            "services/app/migrations/versions/0001_documents.py",
            "            CONSTRAINT fk_document_file_tenant_id_document FOREIGN KEY (tenant_id, document_id)\n"
            "                REFERENCES document (tenant_id, id) ON DELETE CASCADE,\n",
            "",
        ),
    ),
    _mutant(
        "T3",
        "a context is good for any callee",
        f"{_SECURITY}/test_t03_confused_deputy.py",
        Change(f"{_IDENTITY}/_context_tokens.py", "if aimed_at != audience:", "if False:"),
    ),
    _mutant(
        "T3",
        "a context's signature is not verified",
        f"{_SECURITY}/test_t03_confused_deputy.py",
        Change(
            f"{_IDENTITY}/_context_tokens.py",
            "return jws.deserialize_compact(context, key, algorithms=[_ALGORITHM]).payload",
            "return jws.extract_compact(context).payload",
        ),
    ),
    _mutant(
        "T3",
        "a context may be signed by anybody",
        f"{_SECURITY}/test_t03_confused_deputy.py",
        Change(
            f"{_IDENTITY}/_context_tokens.py",
            "if key is None or key.thumbprint() != thumbprint:",
            "if key is None:",
        ),
    ),
    _mutant(
        "T3",
        "a redirect takes our headers along",
        f"{_SECURITY}/test_t03_confused_deputy.py",
        Change(f"{_LIBRARY}/http/_calls.py", "request.extensions[_REDIRECTED] = True", "pass"),
    ),
    _mutant(
        "T4",
        "a selector need not be the credential's tenant",
        f"{_SECURITY}/test_t04_tenant_spoofing.py",
        Change(f"{_IDENTITY}/_identify.py", "if named is None or named.id != tenant_id:", "if False:"),
    ),
    _mutant(
        "T4",
        "a second credential is not looked at",
        f"{_SECURITY}/test_t04_tenant_spoofing.py",
        Change(f"{_IDENTITY}/_identify.py", "elif not _is_same(caller, found):", "elif False:"),
    ),
    _mutant(
        "T4",
        "anybody may forward a host",
        f"{_SECURITY}/test_t04_tenant_spoofing.py",
        Change(
            f"{_IDENTITY}/_hosts.py",
            "return client is not None and _is_within(client[0], self._proxies)",
            "return True",
        ),
    ),
    _mutant(
        "T5",
        "one tenant's issuer speaks of another",
        f"{_SECURITY}/test_t05_external_tokens.py",
        Change(
            f"{_IDENTITY}/_external.py",
            "if issuer.bound_to is not None and (named is None or found is None or named.id != found.id):",
            "if False:",
        ),
    ),
    _mutant(
        "T5",
        "a token for another application is accepted",
        f"{_SECURITY}/test_t05_external_tokens.py",
        Change(f"{_IDENTITY}/_external.py", "if not claims.audiences() & set(issuer.audiences):", "if False:"),
    ),
    _mutant(
        "T5",
        "a key set of any size is read",
        f"{_SECURITY}/test_t05_external_tokens.py",
        Change(f"{_IDENTITY}/_issuer_keys.py", "if len(body) > MAX_BYTES:", "if False:"),
    ),
    _mutant(
        "T5",
        "a key set is believed for ever",
        f"{_SECURITY}/test_t05_external_tokens.py::test_keys_that_were_not_read_for_too_long_are_not_believed_any_more",
        Change(
            f"{_IDENTITY}/_issuer_keys.py",
            "return self._fetched_at is not None and self._now() - self._fetched_at <= self._max_age_seconds",
            "return self._fetched_at is not None",
        ),
    ),
    _mutant(
        "T5",
        "made-up key ids make us ask each time",
        f"{_SECURITY}/test_t05_external_tokens.py",
        Change(
            f"{_IDENTITY}/_issuer_keys.py",
            "if _is_plausible(kid) and self._now() - self._asked_at >= self._cooldown_seconds:",
            "if _is_plausible(kid):",
        ),
    ),
    _mutant(
        "T5",
        "short RSA keys are keys",
        f"{_SECURITY}/test_t05_external_tokens.py",
        Change(f"{_IDENTITY}/_issuer_keys.py", "if rsa.raw_value.key_size >= _MIN_RSA_BITS:", "if True:"),
    ),
    _mutant(
        "T6",
        "a role with BYPASSRLS serves",
        f"{_SECURITY}/test_t06_roles.py",
        Change(f"{_DATABASE}/_verify.py", "WHERE r.rolbypassrls AND", "WHERE false AND"),
    ),
    _mutant(
        "T6",
        "a member of a mightier role serves",
        "tests/isolation/test_start.py",
        Change(f"{_DATABASE}/_verify.py", "WHERE r.rolname = ANY (:forbidden) AND", "WHERE false AND"),
    ),
    _mutant(
        "T6",
        "a role that follows changes serves",
        f"{_SECURITY}/test_t06_roles.py",
        Change(f"{_DATABASE}/_verify.py", "WHERE r.rolreplication AND", "WHERE false AND"),
    ),
    _mutant(
        "T7",
        "policies do not hold the owner",
        f"{_SECURITY}/test_t07_objects.py",
        Change(
            f"{_DATABASE}/_policies.py",
            '        f"ALTER TABLE {name} FORCE ROW LEVEL SECURITY",\n',
            "",
        ),
    ),
    _mutant(
        "T7",
        "a view with its owner's rights is overlooked",
        "tests/isolation/test_catalogues.py::test_the_audit_sees",
        Change(
            f"{_DATABASE}/_audit.py",
            "WHERE relkind = 'v' AND NOT COALESCE(reloptions",
            "WHERE false AND NOT COALESCE(reloptions",
        ),
    ),
    _mutant(
        "T8",
        "the tenant outlives its transaction",
        f"{_SECURITY}/test_t08_pool_bleed.py",
        Change(
            f"{_DATABASE}/_backbone.py",
            "EXECUTE format('SET LOCAL {TENANT_SETTING} = %L', tenant);",
            "EXECUTE format('SET {TENANT_SETTING} = %L', tenant);",
        ),
    ),
    _mutant(
        "T8",
        "a key of one's own outlives its transaction",
        "tests/integration/orgs/test_isolation.py",
        Change(
            f"{_DATABASE}/_backbone.py",
            "EXECUTE format('SET LOCAL {setting} = %L', key);",
            "EXECUTE format('SET {setting} = %L', key);",
        ),
    ),
    _mutant(
        "T8",
        "a session crosses into another's scope",
        "tests/integration/database/test_binding.py",
        Change(f"{_DATABASE}/_session.py", "if current is not None and current.id != session.tenant_id:", "if False:"),
    ),
    _mutant(
        "T8",
        "a transaction is bound twice",
        f"{_SECURITY}/test_t21_settings.py tests/isolation/test_tables.py",
        Change(f"{_DATABASE}/_backbone.py", "IF bound <> '' AND bound <> tenant THEN", "IF false THEN"),
    ),
    _mutant(
        "T8",
        "a place for a thread is not given back",
        f"{_UNIT}/tenantry_database/test_thread_places.py",
        Change(
            f"{_DATABASE}/_thread_places.py", "asyncio.Semaphore] = WeakValueDictionary()", "asyncio.Semaphore] = {}"
        ),
        Change(
            f"{_DATABASE}/_thread_places.py",
            "await places.enter_async_context(self._pools.setdefault(name, asyncio.Semaphore(size)))",
            "await self._pools.setdefault(name, asyncio.Semaphore(size)).acquire()",
        ),
    ),
    _mutant(
        "T8",
        "a thread is taken before there is a connection",
        "tests/integration/database/test_sync_sessions.py",
        Change(
            f"{_DATABASE}/_databases.py", "await stack.enter_async_context(self._thread_places.enter(pools))", "pass"
        ),
    ),
    _mutant(
        "T8",
        "a share of connections is not given back",
        "tests/integration/database/test_bulkhead.py",
        Change(f"{_DATABASE}/_databases.py", "            place.release()\n", "            pass\n"),
    ),
    _mutant(
        "T8",
        "a task goes on as its starter's tenant",
        f"{_UNIT}/tenantry/test_spawn.py",
        Change(f"{_LIBRARY}/_spawn.py", "context = contextvars.Context()", "context = contextvars.copy_context()"),
    ),
    _mutant(
        "T9",
        "caches between us and callers keep answers",
        f"{_SECURITY}/test_t09_cache.py",
        Change(
            f"{_LIBRARY}/http/_privacy.py",
            '((_CACHE_CONTROL, b"private, no-store"),)',
            '((_CACHE_CONTROL, b"public"),)',
        ),
    ),
    _mutant(
        "T9",
        "a value has no tenant, in name and content",
        f"{_SECURITY}/test_t09_cache.py",
        Change(f"{_LIBRARY}/cache/_envelope.py", "if envelope.tenant != tenant_id.bytes:", "if False:"),
        Change(f"{_LIBRARY}/cache/_keys.py", '(f"t:{{{tenant_id}}}", "-", *parts)', '("t:", "-", *parts)'),
        Change(
            f"{_LIBRARY}/cache/_redis_store.py",
            'prefix, rest = f"t:{{{tenant_id}}}:", f"{self._space(namespace)}:{key_part(key)}"\n'
            "        try:\n            await self._catch_up",
            'prefix, rest = "t:", f"{self._space(namespace)}:{key_part(key)}"\n'
            "        try:\n            await self._catch_up",
        ),
    ),
    _mutant(
        "T9",
        "a value's name has no tenant",
        f"{_UNIT}/tenantry_cache/test_keys.py",
        Change(
            f"{_LIBRARY}/cache/_keys.py",
            'f"t:{{{tenant_id}}}:{epoch}:{namespace}:{key_part(key)}"',
            'f"t:{epoch}:{namespace}:{key_part(key)}"',
        ),
    ),
    _mutant(
        "T9",
        "a value is not asked whose it is",
        f"{_UNIT}/tenantry_cache/test_cache.py",
        Change(f"{_LIBRARY}/cache/_envelope.py", "if envelope.tenant != tenant_id.bytes:", "if False:"),
    ),
    _mutant(
        "T9",
        "rights outlive the tenant's version",
        f"{_SECURITY}/test_t09_cache.py",
        Change(
            f"{_LIBRARY}/cache/_namespace.py",
            'return f"{place}v{tenant.version}" if self._versioned else str(place)',
            "return str(place)",
        ),
    ),
    _mutant(
        "T10",
        "log lines are not redacted",
        f"{_SECURITY}/test_t10_leaks.py",
        Change(f"{_LIBRARY}/_logging.py", "event[name] = redact_value(name, value)", "pass"),
    ),
    _mutant(
        "T10",
        "a dead letter quotes the row",
        f"{_SECURITY}/test_t10_leaks.py",
        Change(f"{_LIBRARY}/events/_dead_letters.py", "redact(invalid.reason)", "invalid.reason"),
    ),
    _mutant(
        "T10",
        "errors of the database show their rows",
        f"{_SECURITY}/test_t10_leaks.py",
        Change(f"{_DATABASE}/_databases.py", "hide_parameters=True,", "hide_parameters=False,"),
        Change(f"{_LIBRARY}/_redaction.py", r"(\[parameters: ).*", r"(never anything).*"),
    ),
    _mutant(
        "T10",
        "a row is logged where no test looks for it",
        "tests/isolation/test_routes.py",
        Change(
            "services/app/src/app_service/service.py",
            "from sqlalchemy.ext.asyncio import AsyncSession\n",
            "import structlog\nfrom sqlalchemy.ext.asyncio import AsyncSession\n",
        ),
        Change(
            "services/app/src/app_service/service.py",
            "    document = await repository.find_document(session, tenant.id, document_id)\n",
            "    document = await repository.find_document(session, tenant.id, document_id)\n"
            '    structlog.get_logger().info("found", title=document and document.title)\n',
        ),
    ),
    _mutant(
        "T10",
        "a refused body is repeated in the answer",
        f"{_SECURITY}/test_t10_leaks.py",
        Change(
            f"{_LIBRARY}/http/_problems.py",
            'msg=str(fault["msg"]))',
            "msg=f\"{fault['msg']}: {fault.get('input')}\")",
        ),
    ),
    _mutant(
        "T11",
        "another's tenant is forbidden, not unknown",
        f"{_SECURITY}/test_t01_object_access.py {_SECURITY}/test_t11_enumeration.py",
        Change(
            f"{_TENANT}/dependencies.py",
            "        raise NotFound\n    if not allowed:",
            "        raise PermissionDenied\n    if not allowed:",
        ),
    ),
    _mutant(
        "T11",
        "a tenant that exists takes a statement more",
        f"{_SECURITY}/test_t11_enumeration.py",
        Change(
            f"{_TENANT}/sessions/members.py",
            "    tenant_id = await find_joined_tenant(session, session_id, reference)\n"
            "    tenant, _ = await find_tenant(session, str(tenant_id))\n",
            "    tenant, _ = await find_tenant(session, reference)\n",
        ),
    ),
    _mutant(
        "T11",
        "a secret is compared for known clients alone",
        f"{_SECURITY}/test_t11_enumeration.py",
        Change(
            f"{_TENANT}/identity/secrets.py",
            "expected = bytes(hashlib.sha256().digest_size) if stored_sha256 is None else stored_sha256\n",
            "if stored_sha256 is None:\n        return False\n    expected = stored_sha256\n",
        ),
    ),
    _mutant(
        "T12",
        "a unit costs nothing on the server of limits",
        f"{_SECURITY}/test_t12_quota_bypass.py",
        Change(
            f"{_LIBRARY}/limits/_shared_buckets.py",
            "local owed = debt + cost * 1000000",
            "local owed = debt",
        ),
    ),
    _mutant(
        "T12",
        "each process enforces the whole limit",
        f"{_SECURITY}/test_t12_quota_bypass.py",
        Change(f"{_LIBRARY}/limits/_buckets.py", "burst=max(MICRO, burst * MICRO // share)", "burst=burst * MICRO"),
    ),
    _mutant(
        "T12",
        "messages of a WebSocket cost nothing",
        f"{_UNIT}/tenantry/test_limits.py",
        Change(f"{_LIBRARY}/http/_limiting.py", 'if message["type"] == "websocket.receive":', "if False:"),
    ),
    _mutant(
        "T12",
        "a batch costs as much as one",
        f"{_UNIT}/tenantry/test_limits.py",
        Change(f"{_LIBRARY}/http/_limiting.py", "return max(1, -(-int(value) // unit))", "return 1"),
    ),
    _mutant(
        "T15",
        "another service writes the tenants' states",
        f"{_SECURITY}/test_t15_kafka_access.py",
        Change(
            "infra/kafka/topics.yaml",
            "writes: [tenant.acks.v1, usage.events.v1,",
            "writes: [tenant.state.v1, tenant.acks.v1, usage.events.v1,",
        ),
    ),
    _mutant(
        "T15",
        "a service may be in every group",
        f"{_SECURITY}/test_t15_kafka_access.py",
        Change(f"{_LIBRARY}/events/_access.py", 'own = f"{prefix}{service}-"', "own = prefix"),
    ),
    _mutant(
        "T15",
        "rights that are not in the file stay",
        f"{_SECURITY}/test_t15_kafka_access.py",
        Change(f"{_LIBRARY}/events/_access.py", "sorted(present - wanted)", "[]"),
    ),
    _mutant(
        "T15",
        "a record may say two tenants",
        f"{_UNIT}/tenantry_events/test_envelope.py",
        Change(
            f"{_LIBRARY}/events/_envelope.py", "    _check_tenant(record, event)\n    return event", "    return event"
        ),
    ),
    _mutant(
        "T15",
        "an event counts under another tenant's key",
        "tests/integration/usage/test_worker.py::"
        "test_t15_an_event_under_another_tenants_key_is_a_dead_letter_and_counts_for_nobody",
        Change(
            "services/usage/src/usage_service/metering/rows.py",
            "            or not keyed\n",
            "",
        ),
        Change(
            "services/usage/src/usage_service/metering/worker.py",
            "if key[:TENANT_LENGTH].lower() != event.subject.lower().encode():",
            "if False:",
        ),
    ),
    _mutant(
        "T16",
        "a token outlives its credential",
        f"{_SECURITY}/test_t16_ended_credentials.py",
        Change(
            f"{_IDENTITY}/_identify.py",
            "exchanged = self._credentials.narrow(principal)",
            "exchanged = self._credentials.narrow(principal) or principal",
        ),
    ),
    _mutant(
        "T16",
        "a tenant's status is not looked at",
        f"{_SECURITY}/test_t16_stale_privilege.py",
        Change(f"{_LIBRARY}/http/_middleware.py", "            admit(tenant, operation)\n", "            pass\n"),
    ),
    _mutant(
        "T16",
        "jobs of a suspended tenant are run",
        "tests/integration/jobs/test_worker.py::test_jobs_of_a_tenant_that_may_not_work_wait_for_it",
        Change(f"{_LIBRARY}/jobs/_worker.py", "        admit(tenant, Operation.JOBS)\n", "        pass\n"),
    ),
    _mutant(
        "T16",
        "a stream goes on whatever happens",
        f"{_SECURITY}/test_t16_stale_privilege.py::test_quiet_server_sent_events_end_with_a_problem",
        Change(f"{_LIBRARY}/http/_watch.py", "            self._serving.cancel()\n", "            pass\n"),
    ),
    _mutant(
        "T17",
        "nothing is erased",
        f"{_SECURITY}/test_t17_incomplete_purge.py",
        Change(
            f"{_LIBRARY}/offboarding/_purge.py",
            "_ERASED = frozenset({Retention.ERASE.value})",
            "_ERASED: frozenset[str] = frozenset()",
        ),
    ),
    _mutant(
        "T17",
        "a table is left out",
        f"{_SECURITY}/test_t17_incomplete_purge.py",
        Change(
            f"{_LIBRARY}/offboarding/_plan.py",
            "for name in sorter.static_order()]",
            "for name in list(sorter.static_order())[1:]]",
        ),
    ),
    _mutant(
        "T17",
        "a table that nobody declared is overlooked",
        "tests/isolation/test_catalogues.py::test_the_audit_sees",
        Change(
            f"{_DATABASE}/_audit.py",
            "WHERE relkind IN ('r', 'p', 'f') AND NOT relispartition AND relname <> 'alembic_version'",
            "WHERE false",
        ),
    ),
    _mutant(
        "T18",
        "any operator uses a grant",
        f"{_SECURITY}/test_t18_support_access.py",
        Change(f"{_TENANT}/support/service.py", "row is None or row.operator != operator or", "row is None or"),
    ),
    _mutant(
        "T18",
        "a grant does not end",
        f"{_SECURITY}/test_t18_support_access.py",
        Change(
            f"{_IDENTITY}/_credentials.py",
            "(principal.expires_at is not None and principal.expires_at <= self._clock.now())",
            "False",
        ),
    ),
    _mutant(
        "T18",
        "the trail does not name the operator",
        f"{_SECURITY}/test_t18_support_access.py",
        Change(f"{_TENANT}/dependencies.py", "impersonator=principal.actor,", "impersonator=None,"),
    ),
    _mutant(
        "T18",
        "support makes itself another way in",
        f"{_SECURITY}/test_t18_support_access.py",
        Change(
            f"{_TENANT}/support/service.py",
            "WRITE_SCOPES = (Scope.TENANT_READ, Scope.TENANT_WRITE)",
            "WRITE_SCOPES = (Scope.TENANT_READ, Scope.TENANT_WRITE, Scope.TENANT_ADMIN)",
        ),
        Change(
            f"{_TENANT}/dependencies.py",
            "principal.has_any(Scope.TENANT_ADMIN) and principal.kind is not PrincipalKind.SUPPORT",
            "principal.has_any(Scope.TENANT_ADMIN)",
        ),
    ),
    _mutant(
        "T19",
        "fields of the server are ignored, not refused",
        f"{_SECURITY}/test_t19_mass_assignment.py",
        Change(
            f"{_TENANT}/tenants/schemas.py",
            'model_config = ConfigDict(extra="forbid")',
            'model_config = ConfigDict(extra="ignore")',
        ),
    ),
    _mutant(
        "T19",
        "another service ignores fields, too",
        f"{_SECURITY}/test_t19_mass_assignment.py::test_input_models_forbid_what_they_do_not_name",
        Change(
            "services/billing/src/billing_service/invoicing/schemas.py",
            'model_config = ConfigDict(extra="forbid")',
            'model_config = ConfigDict(extra="ignore")',
        ),
    ),
    _mutant(
        "T20",
        "a tier's constraints are not applied",
        f"{_SECURITY}/test_t20_feature_escalation.py",
        Change(
            f"{_LIBRARY}/config/_merge.py",
            "if constraint is None or not constraint.patch:",
            "if constraint is None or constraint.patch:",
        ),
    ),
    _mutant(
        "T20",
        "a tenant sets an operator's flag",
        f"{_SECURITY}/test_t20_feature_escalation.py",
        Change(
            f"{_TENANT}/features/settings.py",
            'if name in flags and flags[name].writable_by != "tenant":',
            "if False:",
        ),
    ),
    _mutant(
        "T21",
        "a statement sets the tenant's id",
        "tests/integration/orgs/test_isolation.py::test_neither_the_tenants_id_nor_its_key_can_be_set",
        Change(f"{_DATABASE}/_guard.py", "frozenset({TENANT_SETTING, ", "frozenset({"),
    ),
    _mutant(
        "T21",
        "a statement sets the tenant's key",
        "tests/integration/orgs/test_isolation.py::test_neither_the_tenants_id_nor_its_key_can_be_set",
        Change(f"{_DATABASE}/_guard.py", "_PROTECTED | {binding.column.setting}", "_PROTECTED"),
    ),
    _mutant(
        "T21",
        "statements are not looked at",
        f"{_SECURITY}/test_t21_settings.py",
        Change(f"{_DATABASE}/_guard.py", "if _SUSPICIOUS.search(statement) is None:", "if True:"),
    ),
    _mutant(
        "T21",
        "what a statement has set stays on",
        f"{_SECURITY}/test_t21_settings.py",
        Change(f"{_DATABASE}/_guard.py", 'cursor.execute("RESET ALL")', 'cursor.execute("SELECT 1")'),
    ),
    _mutant(
        "T21",
        "autocommit is allowed",
        f"{_SECURITY}/test_t21_settings.py",
        Change(
            f"{_DATABASE}/_guard.py",
            'if str(options.get("isolation_level", "")).upper() == "AUTOCOMMIT":',
            "if False:",
        ),
    ),
    _mutant(
        "T21",
        "a hostile name is more than a name",
        f"{_SECURITY}/test_t21_settings.py::test_a_schema_by_a_hostile_name_is_one_schema",
        Change(
            f"{_DATABASE}/_backbone.py", "SET LOCAL search_path = %I, pg_temp", "SET LOCAL search_path = %s, pg_temp"
        ),
    ),
    _mutant(
        "T21",
        "the linter lets values into statements",
        f"{_SECURITY}/test_t21_settings.py",
        Change("pyproject.toml", '    "COM812", #', '    "S608", "COM812", #'),
    ),
    _mutant(
        "T22",
        "a released name is handed on at once",
        f"{_SECURITY}/test_t22_domain_takeover.py",
        Change(
            f"{_TENANT}/domain/quarantine.py",
            "if quarantine is not None and quarantine.tenant_id != by and now < quarantine.until:",
            "if False:",
        ),
    ),
    _mutant(
        "T22",
        "any record proves a domain",
        f"{_SECURITY}/test_t22_domain_takeover.py",
        Change(
            f"{_TENANT}/domain/domain_claims.py",
            "any(record.strip() == challenge for record in records)",
            "any(record.strip() for record in records)",
        ),
    ),
    _mutant(
        "T22",
        "a service answers to every host",
        f"{_SECURITY}/test_t04_tenant_spoofing.py",
        Change(
            f"{_IDENTITY}/_hosts.py",
            "if not self._own or name in self._own or name in self._bases:",
            "if True:",
        ),
    ),
    _mutant(
        "T23",
        "a grant by mistake opens the trail",
        f"{_SECURITY}/test_t23_audit_tampering.py",
        Change(
            "services/tenant/migrations/versions/0008_audit_chain.py",
            '    "ALTER TABLE system.audit_entry ENABLE ROW LEVEL SECURITY",\n',
            "",
        ),
    ),
    _mutant(
        "T23",
        "an entry's content is not hashed anew",
        f"{_SECURITY}/test_t23_audit_tampering.py",
        Change(
            f"{_TENANT}/domain/audit_chain.py",
            "if content != each.content_hash:",
            "if False:",
        ),
    ),
    _mutant(
        "T23",
        "an erasure excuses any change",
        f"{_SECURITY}/test_t23_audit_tampering.py",
        Change(f"{_TENANT}/domain/audit_chain.py", "if replaced.get(str(position)) == content:", "if True:"),
    ),
    _mutant(
        "T23",
        "an entry need not follow from the last",
        f"{_SECURITY}/test_t23_audit_tampering.py",
        Change(
            f"{_TENANT}/domain/audit_chain.py",
            "if link(previous, each.position, each.content_hash) != each.hash:",
            "if False:",
        ),
    ),
    _mutant(
        "T23",
        "a chain may end anywhere",
        f"{_SECURITY}/test_t23_audit_tampering.py",
        Change(f"{_TENANT}/domain/audit_chain.py", "if position < known.length:", "if False:"),
        Change(
            f"{_TENANT}/domain/audit_chain.py",
            "if position > known.length or known.head != previous:",
            "if False:",
        ),
    ),
)
