"""The operator's script as Python reads it."""

import pytest

from tenantry.database._psql import _Run, _steps, script_path


def steps(script, **variables):
    return list(_steps(script, variables))


def test_statements_end_with_a_semicolon_at_the_end_of_a_line():
    assert steps("SELECT 1;\n-- a comment;\nSELECT ';',\n  2;\n") == [
        ("SELECT 1", "", ""),
        ("SELECT ';',\n  2", "", ""),
    ]


def test_backslash_commands():
    script = "SELECT 'x' AS y \\gset\nSELECT\n  'z' \\gexec\n\\connect :\"database\"\n\\ir other.sql\n"
    assert steps(script) == [
        ("SELECT 'x' AS y", "gset", ""),
        ("SELECT\n  'z'", "gexec", ""),
        ("", "connect", ':"database"'),
        ("", "ir", "other.sql"),
    ]


@pytest.mark.parametrize(("given", "expected"), [({}, ["B", "C"]), ({"a": ""}, ["A", "C"])])
def test_conditions(given, expected):
    script = "\\if :{?a}\nA;\n\\else\nB;\n\\endif\nC;\n"
    assert [statement for statement, _, _ in steps(script, **given)] == expected


def test_a_condition_inside_one_that_is_false():
    assert steps("\\if :{?a}\n\\if :{?b}\nA;\n\\else\nB;\n\\endif\n\\endif\n", b="") == []


def test_values_are_quoted_as_psql_quotes_them():
    run = _Run("", {"name": 'we"ird', "password": "it's"})
    assert run._substitute("""ALTER ROLE :"name" PASSWORD :'password' -- x::text""") == (
        """ALTER ROLE "we""ird" PASSWORD 'it''s' -- x::text"""
    )


def test_a_variable_that_is_not_given_is_an_error():
    with pytest.raises(KeyError, match="service_password"):
        _Run("", {})._substitute("ALTER ROLE x PASSWORD :'service_password'")


@pytest.mark.parametrize("name", ["roles.sql", "database.sql"])
def test_the_scripts_are_found_and_hold_no_password(name):
    script = script_path(name).read_text(encoding="utf-8")
    assert "PASSWORD '" not in script
