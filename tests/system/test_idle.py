"""The idle limit: who does nothing for so long is deleted, who works is not."""

from __future__ import annotations

import threading
from datetime import UTC, datetime

import httpx

from pandastack import Client
from tests.support.installation import Create, eventually


def exists(http: httpx.Client, sandbox_id: str) -> bool:
    return http.get(f"/sandboxes/{sandbox_id}").status_code == 200


def test_idle_sandboxes_are_deleted(http: httpx.Client, client: Client, create: Create) -> None:
    kept, late = create(ttl_seconds=1, persistent=True), create(ttl_seconds=3600)
    limits = late.lifecycle()
    assert datetime.fromisoformat(limits.pop("expires_at")) > datetime.now(UTC)
    assert limits == {
        "ttl_seconds": 3600,
        "persistent": False,
        "idle_seconds": 0,
        "in_use": False,
        "on_expire": "delete",
        "checkpoint_every": None,
        "checkpoint_after_exec": False,
        "max_lifetime_seconds": None,
        "on_memory_loss": "boot",
        "memory": "kept",
        "memory_lost_at": None,
        "memory_lost_reason": None,
    }
    idle = create(ttl_seconds=1)
    eventually(lambda: not exists(http, idle.id), 60, "the idle sandbox is deleted")
    assert exists(http, kept.id) and exists(http, late.id)
    kept.set_persistent(False)
    eventually(lambda: not exists(http, kept.id), 60, "the other one, too, once it may be")


def test_a_running_command_counts_as_activity(http: httpx.Client, create: Create) -> None:
    busy = create(ttl_seconds=3600)
    results: list[str] = []
    command = "until [ -e /run/go ]; do sleep 0.1; done; echo finished"
    thread = threading.Thread(target=lambda: results.append(busy.exec(command).stdout))
    thread.start()
    eventually(lambda: busy.lifecycle()["in_use"], 60, "the command runs")
    busy.set_ttl(1)
    idle = create(ttl_seconds=2)
    eventually(lambda: not exists(http, idle.id), 60, "the idle sandbox is deleted")
    assert exists(http, busy.id)
    busy.filesystem.write("/run/go", b"")
    thread.join()
    assert results == ["finished\n"]
    eventually(lambda: not exists(http, busy.id), 60, "the other one, too, once it is idle")


def test_the_limit_can_be_changed(http: httpx.Client, create: Create) -> None:
    sandbox = create(ttl_seconds=3600)
    assert sandbox.set_ttl(1)["ttl_seconds"] == 1
    eventually(lambda: not exists(http, sandbox.id), 60, "the sandbox is deleted by its new limit")
