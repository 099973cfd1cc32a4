"""What the client library sends about runner pools and jobs, and what it makes of the answers."""

from __future__ import annotations

import base64
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from pandastack import AsyncClient, BuildFailedError, Client, ConnectionError, NotFoundError
from tests.sdk.wire_server import Reply, WireServer

POOL: dict[str, Any] = {"id": "p1", "name": "ci", "state": "ready", "error": None, "version": {"id": "v1"}}
JOB: dict[str, Any] = {"id": "j1", "pool": "ci", "state": "queued"}
DONE: dict[str, Any] = {**JOB, "state": "succeeded", "exit_code": 0}


def events(*given: tuple[str, Any]) -> Reply:
    body = b"".join(f"event: {name}\ndata: {json.dumps(data)}\n\n".encode() for name, data in given)
    return Reply(200, body=body, headers={"content-type": "text/event-stream"})


LOG = (("stdout", {"text": "out\n"}), ("stderr", {"text": "err\n"}))


def test_a_pool_is_made_and_prepared(client: Client, wire: WireServer, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    wire.will(Reply(200, POOL), Reply(202, POOL), events(*LOG, ("ended", POOL)), Reply(200, POOL))
    client.runners.put("ci", prepare=["make"], git="https://example.org/r", ref="main", labels=["linux"], memory_mb=512)
    assert wire.asked[0].json()["git"] == {"url": "https://example.org/r", "ref": "main"}
    assert wire.asked[0].json()["memory_mb"] == 512 and "cpu" not in wire.asked[0].json()
    said: list[tuple[str, str]] = []
    assert client.runners.refresh("ci", tmp_path, on_output=lambda *piece: said.append(piece)) == POOL
    assert said == [("stdout", "out\n"), ("stderr", "err\n")]
    with tarfile.open(fileobj=io.BytesIO(wire.asked[1].body)) as archive:
        assert archive.getnames() == ["file"]
    assert wire.lines == [
        "PUT /v1/runner-pools/ci",
        "POST /v1/runner-pools/ci/refresh",
        "GET /v1/runner-pools/ci/logs?follow=1",
        "GET /v1/runner-pools/ci",
    ]


def test_a_refresh_that_fails_is_an_error_with_the_pool(client: Client, wire: WireServer) -> None:
    failed = {**POOL, "error": "command 1 ended with exit code 9"}
    wire.will(Reply(202, POOL), events(("ended", failed)), Reply(200, failed), Reply(202, POOL))
    with pytest.raises(BuildFailedError, match="exit code 9") as raised:
        client.runners.refresh("ci")
    assert raised.value.build == failed
    assert client.runners.refresh("ci", wait=False) == POOL


def test_requests_about_pools(client: Client, wire: WireServer) -> None:
    wire.will(Reply(200, {"pools": [POOL]}), Reply(204), Reply(201, {"id": "s1", "status": "running"}))
    assert client.runners.list() == [POOL]
    client.runners.delete("ci")
    assert client.runners.sandbox("ci", ttl_seconds=60).id == "s1"
    assert wire.asked[2].json() == {"trusted": False, "ttl_seconds": 60}
    assert wire.asked[2].headers.get("Idempotency-Key")


def test_a_job_is_followed_to_its_end(client: Client, wire: WireServer) -> None:
    wire.will(Reply(202, JOB), events(*LOG, ("ended", DONE)), Reply(200, DONE))
    said: list[tuple[str, str]] = []
    job = client.jobs.run(
        "ci", "make", env={"A": "1"}, stdin=b"\xff", artifacts=["out"], on_output=lambda *piece: said.append(piece)
    )
    assert job == DONE and said == [("stdout", "out\n"), ("stderr", "err\n")]
    body = wire.asked[0].json()
    assert (body["pool"], body["steps"], body["artifacts"]) == ("ci", ["make"], ["out"])
    assert base64.b64decode(body["stdin"]) == b"\xff"
    assert wire.asked[0].headers.get("Idempotency-Key")


def test_a_program_that_is_interrupted_cancels_its_job(client: Client, wire: WireServer) -> None:
    wire.will(Reply(202, JOB), events(*LOG), Reply(200, {**JOB, "state": "cancelled"}))
    with pytest.raises(ConnectionError, match="before the job had ended"):
        client.jobs.run("ci", ["make"])
    assert wire.lines[-1] == "POST /v1/jobs/j1/cancel"


def test_requests_about_jobs(client: Client, wire: WireServer, tmp_path: Path) -> None:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("report"))
    wire.will(Reply(202, JOB), Reply(200, {"jobs": [JOB]}), Reply(200, DONE), Reply(204))
    wire.will(Reply(200, body=made.getvalue(), headers={"content-type": "application/x-tar"}))
    wire.will(events(LOG[0], ("error", {"error": "job not found: j1", "code": "not_found"})))
    client.jobs.create(None, ["a", "b"], labels=["linux"])
    assert "pool" not in wire.asked[0].json() and wire.asked[0].json()["labels"] == ["linux"]
    assert client.jobs.list("ci") == [JOB]
    assert wire.lines[-1] == "GET /v1/jobs?limit=100&pool=ci"
    assert client.jobs.cancel("j1") == DONE
    client.jobs.delete("j1")
    client.jobs.download("j1", tmp_path / "new")
    assert (tmp_path / "new" / "report").exists()
    with pytest.raises(NotFoundError):
        list(client.jobs.logs("j1", follow=False))


@pytest.mark.anyio
async def test_the_waiting_client(wire: WireServer) -> None:
    wire.will(Reply(202, JOB), events(*LOG, ("ended", DONE)), Reply(200, DONE))
    async with AsyncClient(wire.url, "key") as client:
        assert await client.jobs.run("ci", ["make"]) == DONE
