"""What refuses a new version of a function, and what is only told."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from pandastack.errors import BadRequestError, GuestError
from pandastack.products.functions.gate import files_with
from pandastack.products.functions.verdict import (
    Copy,
    Sought,
    Source,
    check_draws,
    check_memory,
    equal_values,
    looks_random,
    parse_copy,
    parse_sockets,
    plan_memory,
    repeated,
    sought,
    warnings_of,
)

KEY = Sought("API_KEY", Source.SECRET, b"sk-live-0123456789", is_credential=True, is_random=True)
WORD = Sought("MODE", Source.ENV, b"production", is_credential=False, is_random=False)
WEAK = Sought("DB_PASSWORD", Source.ENV, b"postgres", is_credential=True, is_random=False)


def copy(values: dict[str, str] | None = None, **draws: str) -> Copy:
    return Copy(draws, values or {})


@pytest.mark.parametrize(
    ("name", "value", "credential", "random"),
    [
        ("API_KEY", "a plain sentence", True, False),
        ("DB_PASSWORD", "postgres", True, False),
        ("GITHUB_PAT", "x" * 20, True, False),
        ("MODE", "production", False, False),
        ("DJANGO_SETTINGS_MODULE", "app.settings", False, False),
        ("MONKEY", "production", False, False),
        ("PATTERN", "production", False, False),
        ("REGION", "eu-central-1-west", False, False),
        ("URL", "https://api.example.org/v1", False, False),
        ("URL", "postgres://app:hunter22@db.example.org/app", True, False),
        ("ANY", "sk-live-0123456789abcdef", True, True),
        ("ANY", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0", True, True),
        ("ANY", "aaaaaaaa11111111", False, False),
    ],
)
def test_which_variables_are_credentials(name: str, value: str, credential: bool, random: bool) -> None:
    (found,) = sought({name: value}, {})
    assert (found.is_credential, found.is_random, found.data) == (credential, random, value.encode())
    (secret,) = sought({}, {name: value})
    assert secret.is_credential and secret.source is Source.SECRET


def test_what_is_not_looked_for() -> None:
    assert sought({"SHORT": "1234567", "NUL": "a\0b" * 9}, {"EMPTY": ""}) == []
    (pem,) = sought({}, {"PEM": "-----BEGIN-----\nMIIEvQIBADANBgkqhkiG9w0BAQ\nshort\n"})
    assert pem.data == b"MIIEvQIBADANBgkqhkiG9w0BAQ", "of several lines the longest"
    (long,) = sought({"LONG": "x" * 300}, {})
    assert long.data == b"x" * 256, "of a long one the beginning"
    (broken,) = sought({"SURROGATE": "\ud800" * 9}, {})
    assert len(broken.data) == 27
    assert "sk-live" not in repr(KEY), "no log shows it"


def test_looking_random_takes_digits_letters_and_variety() -> None:
    assert looks_random("0123456789abcdef") and not looks_random("0123456789012345")
    assert not looks_random("short1abc2") and not looks_random("with spaces 0123456789 abc")


@pytest.mark.parametrize(
    ("found", "inherited", "refused", "warned"),
    [
        ((), (), [], []),
        ((0, 1, 2), (), [KEY, WEAK], [WORD]),
        ((0, 1, 2), (0, 1, 2), [KEY], []),  # common words of the template are no leaks, keys in it are
        ((1, 2), (2,), [], [WORD]),
        ((2, 1), (1,), [WEAK], []),
    ],
)
def test_what_is_found_in_a_memory(
    found: tuple[int, ...], inherited: tuple[int, ...], refused: list[Sought], warned: list[Sought]
) -> None:
    assert plan_memory([KEY, WORD, WEAK], found, inherited) == (refused, warned)


def test_the_refusal_names_what_and_where() -> None:
    check_memory([], {})
    with pytest.raises(BadRequestError) as raised:
        check_memory([KEY, WEAK], {KEY.data: "src/handler.py"})
    error = raised.value
    assert error.message == (
        "the memory of the version holds the value of the secret API_KEY, the variable DB_PASSWORD"
        " (it is in src/handler.py)"
    )
    assert error.detail == {
        "found": [
            {"name": "API_KEY", "source": "secret", "file": "src/handler.py"},
            {"name": "DB_PASSWORD", "source": "env", "file": None},
        ]
    }
    assert "sk-live" not in json.dumps([error.message, error.detail, error.hint])


def test_draws_that_are_the_same_refuse_a_version() -> None:
    first, second = copy(random="1", uuid="2", numpy="3"), copy(random="1", uuid="9", numpy="3")
    assert repeated(first, second) == ["numpy", "random"]
    with pytest.raises(BadRequestError, match="same numbers from numpy, random") as raised:
        check_draws(first, second)
    assert raised.value.detail == {"generators": ["numpy", "random"]} and "seeds" in (raised.value.hint or "")
    check_draws(copy(random="1"), copy(random="2"))


@pytest.mark.parametrize("second", [copy(), copy(uuid="2"), copy(random="2", uuid="3")])
def test_copies_that_do_not_say_the_same_things(second: Copy) -> None:
    for pair in ((copy(random="1"), second), (copy(), copy())):
        with pytest.raises(BadRequestError, match="do not answer alike"):
            check_draws(*pair)


def test_warnings() -> None:
    first, second = copy({"m.id": "a", "m.rng": "b", "m.new": "c"}), copy({"m.id": "a", "m.rng": "x"})
    assert equal_values(first, second) == ["m.id"]
    told = warnings_of([WORD], {WORD.data: "settings.py"}, ["m.id"], ["tcp to 192.0.2.1:5432"])
    assert told == [
        "the memory holds the value of MODE from settings.py: a change of the variable does not change it there",
        "m.id looks unique, and is the same in every run",
        "a connection was open at the capture, and is dead in every run: tcp to 192.0.2.1:5432",
    ]


GOOD: dict[str, Any] = {"draws": {"random": "1"}, "values": {"m.id": "a"}}


def test_what_a_copy_says() -> None:
    assert parse_copy(json.dumps(GOOD).encode()) == Copy({"random": "1"}, {"m.id": "a"})


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        b"\xff",
        *(
            json.dumps({**GOOD, **wrong}).encode()
            for wrong in (
                {"draws": {"random": 1}},
                {"draws": {"random": "x" * 201}},
                {"draws": {"": "1"}},
                {"draws": {"a\nb": "1"}},
                {"draws": {str(n): "1" for n in range(33)}},
                {"draws": ["random"]},
                {"values": {str(n): "1" for n in range(65)}},
                {"values": None},
            )
        ),
    ],
)
def test_what_no_copy_says(data: bytes) -> None:
    with pytest.raises(GuestError, match="malformed"):
        parse_copy(data)


def test_connections_that_a_process_reports() -> None:
    assert parse_sockets(["tcp to 192.0.2.1:1", 7, "\x1b[2J", "x" * 201, ""]) == ("tcp to 192.0.2.1:1",)
    assert len(parse_sockets(["a"] * 99)) == 20
    assert parse_sockets(None) == parse_sockets({"a": 1}) == ()


def test_the_file_that_has_a_value(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "code.tar", "w") as tar:
        for name, content in {"a.py": b"nothing", "b/c.py": b"x = 'sk-live-0123456789'", "d.py": KEY.data}.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    assert files_with(tmp_path / "code.tar", {KEY.data, b"elsewhere"}) == {KEY.data: "b/c.py"}
