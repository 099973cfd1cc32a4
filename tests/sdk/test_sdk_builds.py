"""Hermetic builds from the client library: what is sent, what is unpacked, and what is compared before."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from python_multipart.multipart import parse_form

from pandastack import BuildDifference, BuildFailedError, Client, ConflictError, NotFoundError
from pandastack.errors import BadRequestError, ConnectionError, ServerError
from pandastack.sdk import _builds as builds
from pandastack.sdk._builds import matches, pack_source
from tests.products.archives import of_files
from tests.sdk.wire_server import Asked, Reply, WireServer

CONTENT = b"binary"
DIGEST = hashlib.sha256(CONTENT).hexdigest()
RUNNING = {"id": "b1", "status": "running", "new": 1}
DONE = {**RUNNING, "status": "done", "artifacts": [{"path": "bin/x", "size": 6, "sha256": DIGEST, "new": 1}]}
STATEMENT = {"_type": "s", "subject": [{"name": "bin/x", "digest": {"sha256": DIGEST}}]}
ARTIFACTS = of_files({"bin/x": CONTENT})
ENDED = b'event: output\ndata: {"text": "one\\n"}\n\nevent: output\ndata: {"text": "two"}\n\nevent: ended\ndata: {}\n\n'


def folder_of(place: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(text)
    return place


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return folder_of(tmp_path / "source", {"Makefile": "all:\n", "src/a.c": "int a;\n"})


def sent(asked: Asked) -> tuple[dict[str, Any], list[str]]:
    """The request in a form, and the names in its archive."""
    parts: dict[str, bytes] = {}
    headers = {key.title(): value.encode() for key, value in asked.headers.items()}

    def take_field(field: Any) -> None:
        parts[field.field_name.decode()] = field.value

    def take_file(file: Any) -> None:
        file.file_object.seek(0)
        parts[file.field_name.decode()] = file.file_object.read()

    parse_form(headers, io.BytesIO(asked.body), take_field, take_file)
    with tarfile.open(fileobj=io.BytesIO(parts["source"])) as tar:
        return json.loads(parts["build"]), tar.getnames()


def test_a_build_is_sent_as_a_form(client: Client, wire: WireServer, folder: Path) -> None:
    wire.will(Reply(202, RUNNING))
    build = client.builds.start(folder, "make", artifacts=["bin"], env={"A": "1"}, source_date_epoch=5, verify=True)
    assert (build.id, build.status) == ("b1", "running")
    wanted, names = sent(wire.asked[0])
    assert wanted == {
        "command": "make",
        "template": "base",
        "artifacts": ["bin"],
        "env": {"A": "1"},
        "source_date_epoch": 5,
        "verify": True,
    }
    assert names == ["Makefile", "src", "src/a.c"]
    assert "idempotency-key" in {key.lower() for key in wire.asked[0].headers}


def test_a_lock_is_a_field_of_the_form(client: Client, wire: WireServer, folder: Path) -> None:
    wire.will(Reply(202, RUNNING), Reply(200, b"text\n"))
    client.builds.start(folder, "make", lock="a\nlock\n", refetch=True)
    assert b'name="lock"\r\n\r\na\nlock\n\r\n' in wire.asked[0].body
    assert sent(wire.asked[0])[0] == {"command": "make", "template": "base", "refetch": True}
    assert client.builds.lock("b1") == "text\n"


def test_a_run_follows_and_unpacks(client: Client, wire: WireServer, folder: Path, tmp_path: Path) -> None:
    wire.will(Reply(202, RUNNING), Reply(200, ENDED), Reply(200, DONE), Reply(200, STATEMENT), Reply(200, ARTIFACTS))
    printed: list[str] = []
    build = client.builds.run(folder, "make", tmp_path / "out", on_output=printed.append)
    assert (build.status, "".join(printed)) == ("done", "one\ntwo")
    assert wire.lines[1:] == [
        "GET /v1/builds/b1/logs?follow=1",
        "GET /v1/builds/b1",
        "GET /v1/builds/b1/provenance",
        "GET /v1/builds/b1/artifacts",
    ]
    out = tmp_path / "out"
    assert (out / "bin/x").read_bytes() == CONTENT
    assert (out / "SHA256SUMS").read_text() == f"{DIGEST}  bin/x\n"
    assert json.loads((out / "provenance.json").read_text()) == STATEMENT


def test_a_failed_build_is_an_error_with_its_record(
    client: Client, wire: WireServer, folder: Path, tmp_path: Path
) -> None:
    failed = {**RUNNING, "status": "failed", "reason": "command", "error": "exit code 2", "exit_code": 2}
    wire.will(Reply(202, RUNNING), Reply(200, ENDED), Reply(200, failed))
    with pytest.raises(BuildFailedError, match="exit code 2") as raised:
        client.builds.run(folder, "make", tmp_path / "out")
    assert raised.value.build.exit_code == 2  # type: ignore[attr-defined]
    assert not (tmp_path / "out").exists()


def test_an_interrupted_run_deletes_its_build(client: Client, wire: WireServer, folder: Path, tmp_path: Path) -> None:
    def stop(_text: str) -> None:
        raise KeyboardInterrupt

    wire.will(Reply(202, RUNNING), Reply(200, ENDED), Reply(204))
    with pytest.raises(KeyboardInterrupt):
        client.builds.run(folder, "make", tmp_path / "out", on_output=stop)
    assert wire.lines[-1] == "DELETE /v1/builds/b1"


def test_an_output_that_is_not_empty_is_refused_before_anything_is_sent(
    client: Client, wire: WireServer, folder: Path, tmp_path: Path
) -> None:
    for output in (folder, folder / "Makefile"):
        with pytest.raises(BadRequestError, match="not an empty directory"):
            client.builds.run(folder, "make", output)
    assert wire.asked == []


@pytest.mark.parametrize(
    ("archive", "statement", "error"),
    [
        (of_files({"bin/x": b"others"}), STATEMENT, "not those that the provenance names"),
        (ARTIFACTS, {"subject": []}, "not those that the provenance names"),
        (ARTIFACTS, {"subject": [{"name": "SHA256SUMS", "digest": {"sha256": DIGEST}}]}, "named SHA256SUMS"),
        (ARTIFACTS, {"subject": [{"name": "provenance.json/x", "digest": {"sha256": DIGEST}}]}, "named provenance"),
    ],
)
def test_artifacts_that_are_not_those_of_the_provenance_are_refused(
    client: Client, wire: WireServer, tmp_path: Path, archive: bytes, statement: Mapping[str, Any], error: str
) -> None:
    wire.will(Reply(200, DONE), Reply(200, statement), Reply(200, archive))
    with pytest.raises((ServerError, BadRequestError), match=error):
        client.builds.download(client.builds.get("b1"), tmp_path / "out")
    assert not (tmp_path / "out/SHA256SUMS").exists()


def test_a_record_is_read_whole(client: Client, wire: WireServer) -> None:
    differing = {"path": "a", "kind": "content", "first_size": 1, "second_size": 2, "offset": 0, "new": 1}
    wire.will(Reply(200, {"builds": [{**DONE, "status": "differs", "differences": [differing]}]}), Reply(204))
    (build,) = client.builds.list()
    assert build.differences == (BuildDifference("a", "content", 1, 2, 0),)
    assert build.artifacts[0].size == 6
    client.builds.delete("b1")
    assert wire.lines == ["GET /v1/builds", "DELETE /v1/builds/b1"]


def test_a_log_that_breaks_off_is_an_error(client: Client, wire: WireServer) -> None:
    wire.will(Reply(200, ENDED.partition(b"event: ended")[0]))
    with pytest.raises(ConnectionError, match="before the build had ended"):
        list(client.builds.logs("b1"))
    wire.will(Reply(200, b'event: error\ndata: {"error": "build not found: b1", "code": "not_found"}\n\n'))
    with pytest.raises(NotFoundError, match="build not found"):
        list(client.builds.logs("b1"))
    wire.will(Reply(409, {"error": "build b1 is running", "code": "conflict"}))
    with pytest.raises(ConflictError):
        client.builds.provenance("b1")


def names(folder: Path) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(pack_source(folder))) as tar:
        return tar.getnames()


def test_the_archive_does_not_depend_on_owners_or_order(folder: Path, tmp_path: Path) -> None:
    other = folder_of(tmp_path / "other", {"src/a.c": "int a;\n", "Makefile": "all:\n"})
    for path in [*folder.rglob("*"), *other.rglob("*")]:
        os.utime(path, (9, 9))
    assert pack_source(folder) == pack_source(other)


def test_links_are_links_and_two_names_of_a_file_are_two_files(folder: Path) -> None:
    (folder / "link").symlink_to("/outside")
    (folder / "again").hardlink_to(folder / "Makefile")
    os.mkfifo(folder / "pipe")
    with tarfile.open(fileobj=io.BytesIO(pack_source(folder))) as tar:
        found = {each.name: (each.type, each.linkname, each.size) for each in tar}
    assert found["link"] == (tarfile.SYMTYPE, "/outside", 0)
    assert found["again"] == found["Makefile"] == (tarfile.REGTYPE, "", 5)
    assert "pipe" not in found


def test_ignored_paths_are_left_out_and_gitignore_does_not_matter(folder: Path) -> None:
    folder_of(
        folder,
        {
            ".gitignore": "src\n",
            ".dockerignore": "# not needed\n\n*.o\n/build/\n**/cache\nsrc/*.tmp\n",
            "a.o": "",
            "src/b.o": "",
            "build/x": "",
            "src/build/y": "",
            "src/cache/z": "",
            "src/t.tmp": "",
        },
    )
    assert names(folder) == [
        ".dockerignore",
        ".gitignore",
        "Makefile",
        "src",
        "src/a.c",
        "src/b.o",
        "src/build",
        "src/build/y",
    ]


@pytest.mark.parametrize(
    ("name", "pattern", "result"),
    [
        ("a", "a", True),
        ("a/b", "a", False),  # but the folder a is left out with all that is in it
        ("a/b", "*", False),
        ("a/b", "*/b", True),
        ("x/y/b", "**/b", True),
        ("b", "**/b", True),
        ("x/y/b", "**/y/b", True),
        ("A", "a", False),
        ("a1", "a[0-9]", True),
    ],
)
def test_patterns(name: str, pattern: str, result: bool) -> None:
    assert matches(name, pattern) is result


def test_what_cannot_be_packed_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadRequestError, match="not a directory"):
        pack_source(folder / "Makefile")
    monkeypatch.setattr(builds, "SOURCE_BYTES_MAX", 4)
    with pytest.raises(BadRequestError, match="larger than"):
        pack_source(folder)
    (folder / ".dockerignore").write_text("!keep\n")
    with pytest.raises(BadRequestError, match="exceptions are not supported"):
        pack_source(folder)
