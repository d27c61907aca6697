"""A database on which every fix that is SQL is carried out has none of those findings any more."""

from contextlib import suppress

import asyncpg
import pytest

from tenantry.doctor import Grade, Options, examine


@pytest.mark.parametrize("name", ["pool", "objects", "supabase", "odd"])
async def test_after_the_fixes_only_what_needs_a_decision_is_left(planted, name):
    schema = planted(name)
    options = Options(column=schema.manifest.get("column"))
    advised = set()
    for _ in range(2):  # a table that is secured, or a policy that is dropped, may show another fault
        report = await examine(schema.url, options)
        connection = await asyncpg.connect(schema.admin_url)
        try:
            for finding in report.findings:
                if finding.fix.startswith("--"):
                    advised.add(finding.rule_id)
                elif finding.rule.grade is not Grade.INFO:
                    # Of a policy with several faults another fix may have dropped it.
                    with suppress(asyncpg.UndefinedObjectError):
                        await connection.execute(finding.fix)
        finally:
            await connection.close()
    report = await examine(schema.url, options)
    left = {finding.rule_id for finding in report.findings if finding.rule.grade is not Grade.INFO}
    assert left <= advised
