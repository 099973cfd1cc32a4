"""Template builds from the client library: what is sent with a folder."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest
from python_multipart.multipart import parse_form

from pandastack import Client
from pandastack.errors import BadRequestError
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


def test_what_cannot_be_sent(client: Client, wire: WireServer, folder: Path) -> None:
    with pytest.raises(BadRequestError, match="also in stored_secrets"):
        client.templates.start_build(folder, secrets={"a": "x"}, stored_secrets={"a": "X"})
    with pytest.raises(BadRequestError, match="takes no build arguments"):
        client.templates.start_build(shipped="base", build_args={"A": "1"})
    assert wire.lines == []
