"""Template builds from the client library: what is sent with a folder."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest
from python_multipart.multipart import parse_form

from pandastack import Client
from pandastack.errors import BadRequestError, ConnectionError, TemplateBuildError
from pandastack.sdk._types import TemplateBuild
from tests.sdk.wire_server import Asked, Reply, WireServer

QUEUED = {"id": "b1", "name": "mine", "status": "queued", "ahead": 2, "new": 1}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/Dockerfile").write_text("FROM base\nARG A\n")
    return tmp_path / "mine"


def parts_of(asked: Asked) -> dict[str, bytes]:
    parts: dict[str, bytes] = {}
    headers = {key.title(): value.encode() for key, value in asked.headers.items()}

    def take(part: object) -> None:
        value = getattr(part, "value", None)
        if value is None:
            file = part.file_object  # type: ignore[attr-defined]
            file.seek(0)
            value = file.read()
        parts[part.field_name.decode()] = value  # type: ignore[attr-defined]

    parse_form(headers, io.BytesIO(asked.body), take, take)
    return parts


def names_in(archive: bytes) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        return tar.getnames()


def test_a_folder_alone_is_sent_as_an_archive(client: Client, wire: WireServer, folder: Path) -> None:
    wire.will(Reply(202, QUEUED))
    assert client.templates.start_build(folder, target="one").ahead == 2
    assert wire.lines == ["POST /v1/templates/build?target=one"]
    assert names_in(wire.asked[0].body) == ["mine/Dockerfile"]


def test_arguments_and_secrets_are_sent_in_a_form(client: Client, wire: WireServer, folder: Path) -> None:
    """None of them is in the address, which logs have."""
    wire.will(Reply(202, QUEUED))
    client.templates.start_build(
        folder,
        no_cache=True,
        build_args={"A": "1"},
        secrets={"text": "é", "bytes": b"\0\xff"},
        stored_secrets={"kept": "NAME"},
    )
    assert wire.lines == ["POST /v1/templates/build?no_cache=1"]
    parts = parts_of(wire.asked[0])
    assert json.loads(parts["build_args"]) == {"A": "1"}
    assert json.loads(parts["secrets"]) == {
        "text": {"base64": "w6k="},
        "bytes": {"base64": "AP8="},
        "kept": {"secret": "NAME"},
    }
    assert names_in(parts["recipe"]) == ["mine/Dockerfile"]


def test_an_image_of_a_registry_is_named_in_a_form(client: Client, wire: WireServer) -> None:
    wire.will(Reply(202, QUEUED))
    assert client.templates.register("mine", "alpine:3", memory_mb=512).id == "b1"
    assert wire.lines == ["POST /v1/templates/build"]
    sent = {"name": b"mine", "image_ref": b"alpine:3", "size_mb": b"1024", "memory_mb": b"512"}
    assert parts_of(wire.asked[0]) == sent


@pytest.mark.parametrize("as_path", [True, False])
def test_a_dockerfile_is_sent_with_its_context(client: Client, wire: WireServer, folder: Path, as_path: bool) -> None:
    (folder / "app").mkdir()
    (folder / 'app/odd "name".txt').write_bytes(b"a\0b")
    dockerfile = folder / "Dockerfile"
    given = str(dockerfile) if as_path else dockerfile.read_text()
    wire.will(Reply(202, QUEUED))
    client.templates.build_from_dockerfile("mine", given, context_dir=str(folder), cpu=2)
    parts = parts_of(wire.asked[0])
    assert parts["dockerfile"] == parts["Dockerfile"] == b"FROM base\nARG A\n"
    assert parts["app/odd %22name%22.txt"] == b"a\0b"
    assert (parts["name"], parts["cpu"], parts["size_mb"]) == (b"mine", b"2", b"1024")


def test_a_long_dockerfile_is_no_path(client: Client, wire: WireServer) -> None:
    text = "FROM base\n" + "RUN true\n" * 1000
    wire.will(Reply(202, QUEUED))
    client.templates.build_from_dockerfile("mine", text)
    assert parts_of(wire.asked[0])["dockerfile"].decode() == text


def test_a_build_is_waited_for(client: Client, wire: WireServer) -> None:
    wire.will(Reply(200, QUEUED), Reply(200, {**QUEUED, "status": "running"}), Reply(200, {**QUEUED, "status": "done"}))
    assert client.templates.wait_for_build("b1", poll_interval=0.001).is_done
    wire.will(Reply(200, {**QUEUED, "status": "failed", "error": "no such image"}))
    with pytest.raises(TemplateBuildError, match="no such image") as failed:
        client.templates.wait_for_build("b1")
    assert isinstance(failed.value.build, TemplateBuild)
    assert failed.value.build.is_terminal
    wire.will(Reply(200, QUEUED))
    with pytest.raises(TemplateBuildError, match="has not ended after 0 s: it is queued"):
        client.templates.wait_for_build("b1", timeout_seconds=0)


def test_the_lines_of_a_log(client: Client, wire: WireServer) -> None:
    log = b"data: first\n\n: keep-alive\n\ndata: end\n\nevent: done\ndata: end\n\n"
    wire.will(Reply(200, log), Reply(200, log.partition(b"event")[0]))
    assert list(client.templates.build_logs("b1")) == ["first", "end"]
    assert wire.lines == ["GET /v1/templates/builds/b1/logs?follow=1"]
    with pytest.raises(ConnectionError, match="before the build had ended"):
        list(client.templates.build_logs("b1"))


def test_what_cannot_be_sent(client: Client, wire: WireServer, folder: Path) -> None:
    with pytest.raises(BadRequestError, match="also in stored_secrets"):
        client.templates.start_build(folder, secrets={"a": "x"}, stored_secrets={"a": "X"})
    with pytest.raises(BadRequestError, match="is not a folder"):
        client.templates.build_from_dockerfile("mine", "FROM base", context_dir=str(folder / "missing"))
    with pytest.raises(BadRequestError, match="takes no build arguments"):
        client.templates.start_build(shipped="base", build_args={"A": "1"})
    assert wire.lines == []
