"""Reports of tests in the JUnit format: read what guests wrote, merge it, find tests that do not always end alike.

There is no standard of the format; this is what pytest, JUnit, Go and Jest have in common. A report comes out of a
guest: it has no document type and so no entities, and its size, depth and number of elements are limited.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from xml.parsers import expat
from xml.sax.saxutils import escape, quoteattr

from pandastack.errors import BadRequestError

MOST_BYTES = 32 * 1024 * 1024
"""Of one report."""
MOST_CASES = 200_000
_DEEPEST = 32
_MOST_TEXT = 64 * 1024
"""Characters of one message."""
_LONGEST_SECONDS = 10.0**7


class Outcome(StrEnum):
    PASSED = "passed"
    FAILED = "failed"
    ERROR = "error"
    SKIPPED = "skipped"


_FOREIGN = re.compile(r"[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_MARKS = {"failure": Outcome.FAILED, "error": Outcome.ERROR, "skipped": Outcome.SKIPPED}


@dataclass(frozen=True)
class Case:
    """One run of a test. ``message`` is what it says of a failure or a skip."""

    suite: str
    classname: str
    name: str
    outcome: Outcome
    seconds: float
    message: str = ""

    @property
    def test(self) -> str:
        """The test's name."""
        return f"{self.classname}.{self.name}" if self.classname else self.name


@dataclass(frozen=True)
class Flaky:
    """A test that passed in some copies and failed in others."""

    test: str
    passed: int
    failed: int


def parse(report: bytes) -> list[Case]:
    """The cases of a report. Raises BadRequestError for one that is no report, or too large."""
    if len(report) > MOST_BYTES:
        raise _wrong(f"over {MOST_BYTES >> 20} MiB")
    reader, parser = _Reader(), expat.ParserCreate()
    parser.buffer_text = True
    parser.StartDoctypeDeclHandler = _no_document_type
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    parser.CharacterDataHandler = reader.text
    try:
        parser.Parse(report, True)
    except expat.ExpatError as error:
        raise _wrong(str(error)) from error
    return reader.cases


def merged(cases: Sequence[Case]) -> str:
    """One report of all these cases, by suite."""
    suites: dict[str, list[Case]] = defaultdict(list)
    for each in cases:
        suites[each.suite].append(each)
    lines = ['<?xml version="1.0" encoding="utf-8"?>', f"<testsuites{_numbers(cases)}>"]
    for name, mine in suites.items():
        lines.append(f"  <testsuite name={quoteattr(_clean(name))}{_numbers(mine)}>")
        lines += [_case(each) for each in mine]
        lines.append("  </testsuite>")
    return "\n".join([*lines, "</testsuites>", ""])


def flaky(copies: Mapping[int, Sequence[Case]]) -> list[Flaky]:
    """The tests that did not end alike in all copies of the same run, those that failed most often first."""
    ends: dict[str, list[bool]] = defaultdict(list)
    for cases in copies.values():
        for each in cases:
            if each.outcome is not Outcome.SKIPPED:
                ends[each.test].append(each.outcome is Outcome.PASSED)
    found = [Flaky(test, sum(ends), len(ends) - sum(ends)) for test, ends in ends.items() if 0 < sum(ends) < len(ends)]
    return sorted(found, key=lambda each: (-each.failed, each.test))


class _Reader:
    """Takes the events of the parser."""

    def __init__(self) -> None:
        self.cases: list[Case] = []
        self._path: list[str] = []
        self._suites: list[str] = []
        self._case: dict[str, str] | None = None
        self._outcome = Outcome.PASSED
        self._message = ""

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        if len(self._path) >= _DEEPEST:
            raise _wrong("its elements are nested too deeply")
        if not self._path and tag not in ("testsuites", "testsuite"):
            raise _wrong(f"its first element is {tag[:40]!r}, not testsuites")
        self._path.append(tag)
        if tag == "testsuite":
            self._suites.append(attributes.get("name", ""))
        elif tag == "testcase":
            self._case, self._outcome, self._message = attributes, Outcome.PASSED, ""
        elif tag in _MARKS and self._case is not None:
            self._outcome = _MARKS[tag]
            self._message = attributes.get("message", "")[:_MOST_TEXT]

    def end(self, tag: str) -> None:
        self._path.pop()
        if tag == "testsuite":
            self._suites.pop()
        elif tag == "testcase" and self._case is not None:
            if len(self.cases) >= MOST_CASES:
                raise _wrong(f"over {MOST_CASES} cases")
            given, self._case = self._case, None
            suite = self._suites[-1] if self._suites else ""
            names = given.get("classname", ""), given.get("name", "")
            self.cases.append(Case(suite, *names, self._outcome, _seconds(given.get("time", "")), self._message))

    def text(self, text: str) -> None:
        if self._case is not None and self._path[-1] in _MARKS and len(self._message) < _MOST_TEXT:
            self._message = f"{self._message}\n{text}".strip("\n")[:_MOST_TEXT]


def _no_document_type(*_given: object) -> None:
    raise _wrong("it has a document type")


def _wrong(why: str) -> BadRequestError:
    return BadRequestError(f"junit: not a usable report: {why}", field="junit")


def _seconds(text: str) -> float:
    try:
        seconds = float(text.replace(",", "")[:32])
    except ValueError:
        return 0.0
    return seconds if 0 <= seconds <= _LONGEST_SECONDS else 0.0


def _numbers(cases: Sequence[Case]) -> str:
    count = {outcome: sum(each.outcome is outcome for each in cases) for outcome in Outcome}
    seconds = sum(each.seconds for each in cases)
    return (
        f' tests="{len(cases)}" failures="{count[Outcome.FAILED]}" errors="{count[Outcome.ERROR]}"'
        f' skipped="{count[Outcome.SKIPPED]}" time="{seconds:.3f}"'
    )


def _case(case: Case) -> str:
    names = f"classname={quoteattr(_clean(case.classname))} name={quoteattr(_clean(case.name))}"
    head = f'    <testcase {names} time="{case.seconds:.3f}"'
    if case.outcome is Outcome.PASSED:
        return f"{head}/>"
    tag = next(tag for tag, outcome in _MARKS.items() if outcome is case.outcome)
    first = case.message.partition("\n")[0]
    return f"{head}><{tag} message={quoteattr(_clean(first))}>{escape(_clean(case.message))}</{tag}></testcase>"


def _clean(text: str) -> str:
    """Without characters that XML cannot have."""
    return _FOREIGN.sub("?", text)
