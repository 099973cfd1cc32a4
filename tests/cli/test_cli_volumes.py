"""``pandastack volume``, and the volumes of ``sandbox create``."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.sdk.wire_server import RECORD, Reply, WireServer
from tests.support.cli import Cli

HOLDER = {"sandbox_id": "0b5f", "path": "/mnt/data", "read_only": True}
VOLUME: dict[str, Any] = {"name": "data", "size_mb": 512, "kind": "volume", "attached_to": [HOLDER]}


def test_a_volume_is_made_shown_grown_and_deleted(wire: WireServer, cli: Cli) -> None:
    wire.will(Reply(201, VOLUME), Reply(200, VOLUME), Reply(200, [VOLUME]), Reply(200, {**VOLUME, "size_mb": 1024}))
    assert cli("volume", "create", "data", "--size", "512").stdout == "data\n"
    shown = cli("volume", "get", "data").stdout
    assert "512" in shown and "0b5f (ro)" in shown
    assert "0b5f (ro)" in cli("volume", "list").stdout
    assert "1024 MB" in cli("volume", "grow", "data", "--size", "1024").stdout
    assert [each.json() for each in wire.asked if each.method == "POST"] == [
        {"name": "data", "size_mb": 512},
        {"size_mb": 1024},
    ]
    wire.will(Reply(409, {"error": "attached to sandbox 0b5f", "code": "conflict"}), Reply(204))
    deleted = cli("volume", "delete", "data", "other")
    assert deleted.exit_code == 1 and "0b5f" in deleted.stderr
    assert wire.lines[-1] == "DELETE /v1/volumes/other"


def test_json(wire: WireServer, cli: Cli) -> None:
    wire.will(Reply(200, [VOLUME]), Reply(200, VOLUME), Reply(201, VOLUME))
    assert json.loads(cli("volume", "list", "--json").stdout) == [VOLUME]
    assert json.loads(cli("volume", "get", "data", "--json").stdout) == VOLUME
    assert json.loads(cli("volume", "create", "data", "--json").stdout) == VOLUME


@pytest.mark.parametrize(
    ("words", "body"),
    [
        (["clone", "data", "copy"], {"name": "copy", "from": {"volume": "data"}}),
        (["clone", "data", "copy", "--size", "1"], {"name": "copy", "size_mb": 1, "from": {"volume": "data"}}),
        (["clone", "0b5f:/mnt/a", "copy"], {"name": "copy", "from": {"sandbox": "0b5f", "mount": "/mnt/a"}}),
        (["snapshot", "data", "kept"], {"name": "kept", "from": {"volume": "data"}, "kind": "snapshot"}),
    ],
)
def test_copies(wire: WireServer, cli: Cli, words: list[str], body: dict[str, Any]) -> None:
    wire.will(Reply(201, {**VOLUME, "name": words[2]}))
    assert cli("volume", *words).stdout == f"{words[2]}\n"
    assert wire.asked[0].json() == body


@pytest.mark.parametrize(
    ("text", "mount"),
    [
        ("data", {"name": "data"}),
        ("data:ro", {"name": "data", "read_only": True}),
        ("data:/srv", {"name": "data", "path": "/srv"}),
        ("data:/srv:ro", {"name": "data", "path": "/srv", "read_only": True}),
        ("data:/a:b", {"name": "data", "path": "/a:b"}),
    ],
)
def test_volumes_of_a_sandbox(wire: WireServer, cli: Cli, text: str, mount: dict[str, Any]) -> None:
    wire.will(Reply(201, RECORD))
    assert cli("sandbox", "create", "-t", "base", "--volume", text, "--volume", "b").exit_code == 0
    assert wire.asked[0].json()["volumes"] == [mount, {"name": "b"}]


@pytest.mark.parametrize("text", ["", ":/srv", "data:", "data:srv", "data::ro", "data:rw"])
def test_what_is_not_a_volume_is_refused_before_it_is_sent(wire: WireServer, cli: Cli, text: str) -> None:
    failed = cli("sandbox", "create", "--volume", text)
    assert failed.exit_code == 2 and "NAME[:PATH][:ro]" in failed.stderr
    assert wire.asked == []
