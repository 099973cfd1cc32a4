"""The commands of exports and imports, and what is made of what they say."""

from __future__ import annotations

import shlex

import pytest

from pandastack.contract.records import ExecResult
from pandastack.errors import BadRequestError, PandastackError, StorageFullError, UnavailableError
from pandastack.products.databases.dumps import Format, _explanation, plan_export, plan_import
from pandastack.services.sandboxes.interior import ProgramFailed


@pytest.mark.parametrize(
    "name", ["pandastack", "a b", "it's", "x' user=postgres", "\\", 'a"; rm -rf /; "$(id)', "host=x"]
)
def test_no_name_of_a_database_is_anything_else(name: str) -> None:
    for command in (plan_export(name, Format.PLAIN), plan_import(name, clean=True)):
        words = shlex.split(command)
        assert words[:2] == ["exec", "setpriv"] and "--no-new-privs" in words and "--username=pandastack" in words
        (given,) = [each.removeprefix("--dbname=") for each in words if each.startswith("--dbname=")]
        assert parsed(given) == name


def parsed(text: str) -> str:
    """What libpq reads of a connection string with one value in quotation marks."""
    assert text.startswith("dbname='")
    value, rest = "", iter(text.removeprefix("dbname='"))
    for letter in rest:
        if letter == "'":
            assert "".join(rest).strip() == ""
            return value
        value += next(rest) if letter == "\\" else letter
    raise AssertionError(text)


def test_an_import_is_all_or_nothing() -> None:
    words = shlex.split(plan_import("x", clean=False))
    assert {"--single-transaction", "--exit-on-error", "--no-owner", "--format=custom"} <= set(words)
    assert "--clean" not in words and "--clean" in shlex.split(plan_import("x", clean=True))
    assert "--create" not in words and "psql" not in words, "neither another connection nor a shell"


@pytest.mark.parametrize(
    ("complaints", "kind", "message"),
    [
        ("pg_dump: error: no such table\nmore", BadRequestError, "pg_dump: error: no such table"),
        ("pg_restore: while X\npg_restore: error: a\n", BadRequestError, "pg_restore: error: a"),
        ("pg_restore: error: could not extend file: No space left on device", StorageFullError, "pg_restore: error"),
        ("setpriv: not there", UnavailableError, "setpriv"),
        ("", UnavailableError, "failed"),
        ("odd", BadRequestError, "odd"),
    ],
)
def test_what_they_complain_of(complaints: str, kind: type[PandastackError], message: str) -> None:
    result = ExecResult(exit_code=1)
    found = _explanation(ProgramFailed(result, complaints.encode()))
    assert type(found) is kind and message in found.message
