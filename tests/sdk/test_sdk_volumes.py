"""What the client library sends about volumes, and what it makes of the answers."""

from __future__ import annotations

from typing import Any

import pytest

from pandastack import AsyncClient, Client, ConflictError
from tests.sdk.wire_server import RECORD, Reply, WireServer

VOLUME: dict[str, Any] = {
    "name": "data",
    "size_mb": 512,
    "created_at": "2026-01-01T00:00:00Z",
    "kind": "volume",
    "attached_to": [],
}
ONE = "/v1/volumes/data"


def test_volumes_are_made_listed_grown_and_deleted(client: Client, wire: WireServer) -> None:
    wire.will(*[Reply(201, VOLUME)] * 2, Reply(200, [VOLUME]), *[Reply(200, VOLUME)] * 2, Reply(204))
    assert client.volumes.create("data", 512)["size_mb"] == 512
    assert client.volumes.create("data") == VOLUME
    assert client.volumes.list() == [VOLUME]
    assert client.volumes.get("data") == VOLUME
    assert client.volumes.grow("data", 1024) == VOLUME
    assert client.volumes.delete("data") is None
    made = ["POST /v1/volumes"] * 2
    assert wire.lines == [*made, "GET /v1/volumes", f"GET {ONE}", f"POST {ONE}/grow", f"DELETE {ONE}"]
    assert [each.json() for each in wire.asked[:2]] == [{"name": "data", "size_mb": 512}, {"name": "data"}]
    assert wire.asked[4].json() == {"size_mb": 1024}
    keys = [each.headers.get("Idempotency-Key") for each in wire.asked[:2]]
    assert all(keys) and keys[0] != keys[1]


def test_copies_say_what_they_are_made_of(client: Client, wire: WireServer) -> None:
    wire.will(*[Reply(201, VOLUME)] * 3)
    client.volumes.clone("data", "copy", size_mb=1024, idempotency_key="mine")
    client.volumes.snapshot("data", "kept")
    client.volumes.keep("0b5f", "/mnt/data", "saved")
    assert [each.json() for each in wire.asked] == [
        {"name": "copy", "size_mb": 1024, "from": {"volume": "data"}},
        {"name": "kept", "from": {"volume": "data"}, "kind": "snapshot"},
        {"name": "saved", "from": {"sandbox": "0b5f", "mount": "/mnt/data"}},
    ]
    assert wire.asked[0].headers.get("Idempotency-Key") == "mine"


def test_a_volume_in_use_is_a_conflict(client: Client, wire: WireServer) -> None:
    wire.will(Reply(409, {"error": "the volume data is attached to sandbox 0b5f", "code": "conflict"}))
    with pytest.raises(ConflictError, match="0b5f"):
        client.volumes.delete("data")


def test_a_sandbox_is_created_with_volumes(client: Client, wire: WireServer) -> None:
    wire.will(Reply(201, RECORD))
    volumes = [{"name": "data"}, {"name": "old", "path": "/srv", "read_only": True}]
    client.sandboxes.create("base", volumes=volumes)
    assert wire.asked[0].json() == {"template": "base", "volumes": volumes}


async def test_the_waiting_client_does_the_same(async_client: AsyncClient, wire: WireServer) -> None:
    wire.will(Reply(201, VOLUME), Reply(200, [VOLUME]))
    async with async_client as client:
        assert await client.volumes.create("data") == VOLUME
        assert await client.volumes.list() == [VOLUME]
