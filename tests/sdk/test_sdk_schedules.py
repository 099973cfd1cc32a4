"""``client.schedules``: what is asked, and what comes back."""

from __future__ import annotations

from typing import Any

import pytest

from pandastack import AsyncClient, Client, ConflictError
from tests.sdk.wire_server import Reply, WireServer

SCHEDULE: dict[str, Any] = {"id": "s/1", "name": "n", "function_id": "f", "cron": "0 3 * * *"}
RUN: dict[str, Any] = {"id": "r", "run_id": "r", "status": "pending"}


def test_schedules(client: Client, wire: WireServer) -> None:
    wire.will(*[Reply(200, SCHEDULE)] * 2, Reply(200, [SCHEDULE]), *[Reply(200, SCHEDULE)] * 2)
    wire.will(Reply(200, RUN), Reply(200, [RUN]), Reply(204))
    assert client.schedules.create("n", "f", "0 3 * * *", idempotency_key="k") == SCHEDULE
    client.schedules.create(
        "n", "f", "0 3 * * *", timezone="Asia/Tokyo", overlap="queue", catchup="one", jitter_seconds=5
    )
    assert client.schedules.list() == [SCHEDULE]
    assert client.schedules.get("s/1") == SCHEDULE
    client.schedules.update("s/1", paused=False)
    assert client.schedules.trigger("s/1") == RUN
    assert client.schedules.runs("s/1") == [RUN]
    client.schedules.delete("s/1")
    wanted = {"name": "n", "function_id": "f", "cron": "0 3 * * *"}
    options = {"timezone": "Asia/Tokyo", "overlap": "queue", "catchup": "one", "jitter_seconds": 5}
    assert [wire.asked[0].json(), wire.asked[1].json(), wire.asked[4].json()] == [
        wanted,
        {**wanted, **options},
        {"paused": False},
    ]
    assert wire.asked[0].headers.get("Idempotency-Key") == "k"
    assert wire.lines[3:] == [
        "GET /v1/schedules/s%2F1",
        "PATCH /v1/schedules/s%2F1",
        "POST /v1/schedules/s%2F1/trigger",
        "GET /v1/schedules/s%2F1/runs",
        "DELETE /v1/schedules/s%2F1",
    ]


def test_a_function_that_is_not_ready_is_a_conflict(client: Client, wire: WireServer) -> None:
    wire.will(Reply(409, {"error": "function f is not ready", "code": "conflict"}))
    with pytest.raises(ConflictError, match="not ready"):
        client.schedules.trigger("s")


async def test_the_waiting_client_does_the_same(async_client: AsyncClient, wire: WireServer) -> None:
    wire.will(Reply(200, SCHEDULE), Reply(200, [RUN]))
    async with async_client as client:
        assert await client.schedules.create("n", "f", "0 3 * * *") == SCHEDULE
        assert await client.schedules.runs("s") == [RUN]
