"""Reports in the JUnit format, as guests write them: honest and hostile ones."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pandastack import BadRequestError
from pandastack.sdk import _junit
from pandastack.sdk._junit import Case, Flaky, Outcome, flaky, merged, parse

REPORT = b"""<?xml version="1.0" encoding="utf-8"?>
<testsuites name="all"><testsuite name="unit" tests="4">
<testcase classname="tests.a" name="test_one" time="0.5"/>
<testcase classname="tests.a" name="test_two" time="1,000.5">
<failure message="no">Traceback &lt;x&gt;</failure></testcase>
<testcase name="test_three"><error/><system-out>noise</system-out></testcase>
<testcase classname="tests.b" name="test_four" time="nan"><skipped message="not here"/></testcase>
</testsuite></testsuites>"""


def test_a_report_is_read() -> None:
    assert parse(REPORT) == [
        Case("unit", "tests.a", "test_one", Outcome.PASSED, 0.5),
        Case("unit", "tests.a", "test_two", Outcome.FAILED, 1000.5, "no\nTraceback <x>"),
        Case("unit", "", "test_three", Outcome.ERROR, 0.0),
        Case("unit", "tests.b", "test_four", Outcome.SKIPPED, 0.0, "not here"),
    ]


def test_a_merged_report_has_all_cases_and_can_be_read_again() -> None:
    cases = parse(REPORT) + parse(b"<testsuite name='other'><testcase name='x'/></testsuite>")
    root = ElementTree.fromstring(merged(cases))
    assert (root.get("tests"), root.get("failures"), root.get("errors"), root.get("skipped")) == ("5", "1", "1", "1")
    assert [each.get("name") for each in root] == ["unit", "other"]
    again = parse(merged(cases).encode())
    assert [(each.test, each.outcome) for each in again] == [(each.test, each.outcome) for each in cases]


BOMB = b'<!DOCTYPE a [<!ENTITY b "bbbbbbbbbb"><!ENTITY c "&b;&b;&b;&b;">]><testsuite name="&c;"/>'
FOREIGN = b'<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><testsuite name="&b;"/>'


@pytest.mark.parametrize(
    ("report", "why"),
    [
        (b"", "no element"),
        (b"<testsuite>", "no element"),
        (b"<html/>", "first element"),
        (b"no xml", "syntax error|not well-formed"),
        (BOMB, "document type"),
        (FOREIGN, "document type"),
        (b"<testsuite name='&x;'/>", "undefined entity"),
        (b"<testsuite>" * 40, "nested"),
        (b"<testsuite>\xff</testsuite>", "not well-formed"),
    ],
)
def test_what_is_no_report_is_refused(report: bytes, why: str) -> None:
    with pytest.raises(BadRequestError, match=why):
        parse(report)


def test_reports_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    many = b"<testsuite>" + b"<testcase name='x'/>" * 11 + b"</testsuite>"
    monkeypatch.setattr(_junit, "MOST_CASES", 10)
    with pytest.raises(BadRequestError, match="over 10 cases"):
        parse(many)
    monkeypatch.setattr(_junit, "MOST_BYTES", 100)
    with pytest.raises(BadRequestError, match="MiB"):
        parse(many)
    long = b"<testsuite><testcase><failure>" + b"<i/>x" * 9 + b"</failure></testcase></testsuite>"
    monkeypatch.setattr(_junit, "MOST_BYTES", 10**6)
    monkeypatch.setattr(_junit, "_MOST_TEXT", 5)
    assert len(parse(long)[0].message) <= 5


@given(st.text(), st.text(), st.sampled_from(Outcome), st.text())
def test_whatever_names_contain_is_valid_xml_when_merged(suite: str, name: str, outcome: Outcome, message: str) -> None:
    (again,) = parse(merged([Case(suite, name, name, outcome, 1.0, message)]).encode("utf-8"))
    assert again.outcome is outcome


def test_tests_that_do_not_end_alike_are_flaky() -> None:
    def case(name: str, outcome: Outcome) -> Case:
        return Case("s", "", name, outcome, 0.0)

    passed, failed = Outcome.PASSED, Outcome.FAILED
    copies = {
        0: [case("good", passed), case("bad", failed), case("now and then", failed), case("seldom", passed)],
        1: [case("good", passed), case("bad", failed), case("now and then", Outcome.ERROR), case("seldom", failed)],
        2: [case("good", Outcome.SKIPPED), case("now and then", passed), case("seldom", passed)],
    }
    assert flaky(copies) == [Flaky("now and then", 1, 2), Flaky("seldom", 2, 1)]
