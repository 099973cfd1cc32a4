"""The secrets of a build: masked in what it prints, and refused in what it keeps."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pandastack.engine.build import secrets
from pandastack.engine.build.boot import _Lines
from pandastack.engine.build.secrets import Mask, refuse_written
from pandastack.errors import BadRequestError, BuildError
from pandastack.images.given import SECRET_MAX, Given

TOKEN = b"tok-0123456789abcdef"
PEM = b"-----BEGIN KEY-----\nMIIBOgIBAAJBAKj3\n-----END KEY-----\n"


class Printed:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def begin(self, title: str) -> None: ...
    def line(self, text: str) -> None:
        self.lines.append(text)

    def advance(self, done: int, total: int) -> None: ...
    def end(self, title: str, seconds: float, note: str) -> None: ...


def printed(output: bytes, values: dict[str, bytes], piece: int) -> list[str]:
    """What is shown of an output that comes in pieces, and what an error would show of it."""
    into = Printed()
    lines = _Lines(into, Mask(values))
    for start in range(0, len(output), piece):
        lines.take(output[start : start + piece])
    return [*into.lines, *lines.last()]


@pytest.mark.parametrize("piece", [1, 7, 64, 100_000])
def test_a_value_is_masked_wherever_it_is_cut(piece: int) -> None:
    output = b"a " + TOKEN + b" b\n" + PEM + b"+ x=" + TOKEN + TOKEN + b"\n" + b"x" * 9000 + TOKEN + b"y" * 9000 + TOKEN
    shown = "\n".join(printed(output, {"t": TOKEN + b"\n", "k": PEM}, piece))
    assert shown.startswith("a **** b\n****\n****\n****\n+ x=********\n")
    assert not any(part in shown for part in ("0123456789", "89abcdef", "MIIBOgIB", "BEGIN KEY"))


@pytest.mark.parametrize("piece", [5000, 70_000])
def test_a_long_value_is_masked_though_lines_are_cut(piece: int) -> None:
    value = b"%06d" * 5000 % tuple(range(5000))
    shown = "".join(printed(b"x" * 4000 + value + b"tail" + b"\n", {"v": value}, piece))
    assert shown.count("****") >= 1 and "001234" not in shown and "tail" in shown


def test_short_values_are_not_masked() -> None:
    assert printed(b"on the way\n", {"a": b"on", "b": b"\n\n"}, 100) == ["on the way"] * 2


def test_of_a_value_with_many_lines_each_is_masked_where_it_is_alone() -> None:
    value = b"\n".join(b"line %04d" % number for number in range(500))
    shown = printed(b"line 0400\n  line 0400\r\nin line 0400 of\nin line 0003 of\n", {"v": value}, 1000)
    assert shown[:4] == ["****", "****", "in line 0400 of", "in **** of"]


@pytest.mark.parametrize("place", [0, 4096, 3 * 1024 * 1024 - 9])
def test_a_value_on_the_disk_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: int) -> None:
    monkeypatch.setattr(secrets, "_PIECE", 1024 * 1024)
    layer = tmp_path / "layer"
    with layer.open("wb") as file:
        file.truncate(64 * 1024 * 1024)
        os.pwrite(file.fileno(), b"\1" * 4 * 1024 * 1024, 0)
    refuse_written(layer, {"t": TOKEN}, "line 1: RUN x")
    with layer.open("r+b") as file:
        os.pwrite(file.fileno(), TOKEN, place)
    with pytest.raises(BuildError, match="line 1: RUN x has written the secret t") as refused:
        refuse_written(layer, {"other": b"x" * 16, "t": TOKEN + b"\n"}, "line 1: RUN x")
    assert TOKEN.decode() not in str(refused.value)
    refuse_written(layer, {"short": TOKEN[:15]}, "line 1: RUN x")


@pytest.mark.parametrize(
    ("given", "field"),
    [
        (Given({"1A": ""}), "build_args"),
        (Given({f"A{number}": "" for number in range(101)}), "build_args"),
        (Given({"A": "x\0"}), "build_args.A"),
        (Given({"A": "\ud800"}), "build_args.A"),
        (Given({"A": "x" * 131073}), "build_args.A"),
        (Given({f"A{number}": "x" * 131072 for number in range(9)}), "build_args"),
        (Given(secrets={"a b": b"x"}), "secrets"),
        (Given(secrets={"..": b"x"}), "secrets"),
        (Given(secrets={"a": b""}), "secrets.a"),
        (Given(secrets={"a": b"x" * (SECRET_MAX + 1)}), "secrets.a"),
        (Given(secrets=dict.fromkeys("abc", b"x" * SECRET_MAX)), "secrets"),
        (Given(secrets={f"s{number}": b"x" for number in range(17)}), "secrets"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_no_build_takes(given: Given, field: str) -> None:
    with pytest.raises(BadRequestError) as refused:
        given.check()
    assert refused.value.field == field
    assert len(str(refused.value)) < 200


def test_values_are_not_shown() -> None:
    assert "tok-" not in repr(Given(secrets={"t": TOKEN}))
