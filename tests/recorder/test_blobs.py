"""The store of fetched bodies."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from pandastack.errors import ServerError
from pandastack.recorder.blobs import Blobs
from pandastack.recorder.lock import Entry, lock_of


def entry(body: bytes) -> Entry:
    digest = hashlib.sha256(body).hexdigest()
    return Entry("GET", f"http://example.org/{digest[:8]}", 200, len(body), digest)


def spooled(place: Path, *bodies: bytes) -> list[Entry]:
    place.mkdir(exist_ok=True)
    made = [entry(body) for body in bodies]
    for each, body in zip(made, bodies, strict=True):
        (place / each.sha256).write_bytes(body)
    return made


@pytest.fixture
def blobs(tmp_path: Path) -> Blobs:
    made = Blobs(tmp_path / "fetched" / "one")
    made.make()
    return made


def test_bodies_are_moved_in_once_and_then_found(blobs: Blobs, tmp_path: Path) -> None:
    one, two = spooled(tmp_path / "spool", b"one", b"two")
    lock = lock_of([one, two])
    assert {each.sha256 for each in blobs.missing(lock)} == {one.sha256, two.sha256}
    blobs.adopt(tmp_path / "spool", lock_of([one]))
    assert blobs.missing(lock) == [two]
    blobs.adopt(tmp_path / "spool", lock)
    blobs.adopt(tmp_path / "spool", lock)  # everything is there
    assert blobs.missing(lock) == []
    assert (blobs.directory / one.sha256).read_bytes() == b"one"


def test_a_body_that_is_not_what_its_name_says_is_refused(blobs: Blobs, tmp_path: Path) -> None:
    (one,) = spooled(tmp_path / "spool", b"one")
    (tmp_path / "spool" / one.sha256).write_bytes(b"other")
    with pytest.raises(ServerError, match="another body"):
        blobs.adopt(tmp_path / "spool", lock_of([one]))
    assert list(blobs.directory.iterdir()) == []


@pytest.mark.parametrize("kind", ["link", "pipe", "directory"])
def test_only_files_are_moved_in(blobs: Blobs, tmp_path: Path, kind: str) -> None:
    (one,) = spooled(tmp_path / "spool", b"one")
    path = tmp_path / "spool" / one.sha256
    path.rename(tmp_path / "elsewhere")
    if kind == "link":
        path.symlink_to(tmp_path / "elsewhere")
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()
    with pytest.raises((ServerError, OSError)):
        blobs.adopt(tmp_path / "spool", lock_of([one]))
    assert list(blobs.directory.iterdir()) == []


def test_those_used_longest_ago_make_room(blobs: Blobs, tmp_path: Path) -> None:
    old, needed, new = spooled(tmp_path / "spool", b"1" * 100, b"2" * 100, b"3" * 100)
    blobs.adopt(tmp_path / "spool", lock_of([old, needed, new]))
    for age, each in enumerate((new, old, needed)):
        os.utime(blobs.directory / each.sha256, (1000 - age, 1000 - age))
    blobs.prune(1000, ())
    assert blobs.missing(lock_of([old, needed, new])) == []
    for age, each in enumerate((new, old, needed)):
        os.utime(blobs.directory / each.sha256, (1000 - age, 1000 - age))
    blobs.prune(200, {needed.sha256})
    assert blobs.missing(lock_of([old, needed, new])) == [old]
