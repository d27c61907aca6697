"""The catalogue of rules, and what is said of it in docs/doctor.md."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tenantry.doctor import RULES, Acceptance, DoctorFailed, Finding, Grade

PAGE = Path(__file__).parents[3] / "docs" / "doctor.md"


def test_the_page_has_each_rule_as_it_is():
    rows = re.findall(r"^\| (TD\d{3}) \| (\w+) \| (.+?) \| (.+?) \|$", PAGE.read_text("utf-8"), re.MULTILINE)
    assert rows == [(rule.id, rule.grade.value, rule.title, rule.why) for rule in RULES.values()]


def test_numbers_are_in_order():
    assert list(RULES) == sorted(RULES)


def test_grades_have_an_order():
    assert sorted(Grade, key=lambda grade: grade.weight) == [
        Grade.INFO,
        Grade.CITUS,
        Grade.PERFORMANCE,
        Grade.ISOLATION,
    ]


@pytest.mark.parametrize(
    ("text", "covered"),
    [
        ("TD201", True),
        ("TD201:public.order", True),
        ("TD201:public.*", True),
        ("TD201:public", False),
        ("TD202:public.order", False),
    ],
)
def test_an_acceptance_covers_a_rule_or_an_object(text, covered):
    finding = Finding("TD201", "public.order", "", "", "")
    assert Acceptance.parse(text).covers(finding) is covered
    assert str(Acceptance.parse(text)) == text


def test_a_name_with_brackets_is_itself():
    assert Acceptance.parse("TD201:public.a[1]").covers(Finding("TD201", "public.a[1]", "", "", ""))


def test_an_unknown_rule_cannot_be_accepted():
    with pytest.raises(DoctorFailed, match="TD999"):
        Acceptance.parse("TD999:public.order")


WITHOUT_SQLGLOT = """
import sys
sys.modules["sqlglot"] = None
from tenantry.doctor import DoctorFailed, Options
from tenantry.doctor._examine import diagnose
from tenantry.doctor._inventory import Inventory
try:
    diagnose(Inventory("18", "d", 1, {}), Options())
except DoctorFailed as error:
    print(error)
"""


def test_without_sqlglot_it_says_what_to_install():
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_SQLGLOT], check=True, timeout=60, capture_output=True, text=True
    )
    assert done.stdout == "reading policies needs sqlglot: pip install 'tenantry[cli,doctor]'\n"
