"""``pandastack schedule``."""

from __future__ import annotations

import json
from typing import Any

from tests.sdk.wire_server import Reply, WireServer
from tests.support.cli import Cli

SCHEDULE: dict[str, Any] = {
    "id": "s1",
    "name": "nightly",
    "function_id": "f1",
    "cron": "0 3 * * *",
    "timezone": "UTC",
    "paused": False,
    "next_run_at": "2026-01-01T03:00:00.000Z",
    "next_runs": ["2026-01-01T03:00:00.000Z", "2026-01-02T03:00:00.000Z"],
}
RUN = {"id": "r1", "run_id": "r1", "status": "skipped", "nominal_at": "2026-01-01T03:00:00.000Z", "reason": "why not"}


def test_a_schedule_is_made_shown_changed_and_deleted(wire: WireServer, cli: Cli) -> None:
    wire.will(Reply(200, SCHEDULE), Reply(200, [SCHEDULE]), Reply(200, SCHEDULE))
    options = ("--timezone", "Asia/Tokyo", "--overlap", "queue", "--catchup", "one", "--jitter", "5", "--paused")
    assert cli("schedule", "create", "nightly", "--function", "f1", "--cron", "0 3 * * *", *options).stdout == "s1\n"
    assert "nightly" in cli("schedule", "list").stdout
    assert "2026-01-02" in cli("schedule", "get", "s1").stdout
    paused = {**SCHEDULE, "paused": True}
    wire.will(Reply(200, paused), Reply(200, SCHEDULE), Reply(200, SCHEDULE), Reply(204))
    assert cli("schedule", "pause", "s1").stdout == "nightly: next run paused\n"
    assert "2026-01-01" in cli("schedule", "resume", "s1").stdout
    cli("schedule", "update", "s1", "--cron", "5 * * * *", "--name", "other")
    assert cli("schedule", "delete", "s1").exit_code == 0
    wanted = {"name": "nightly", "function_id": "f1", "cron": "0 3 * * *", "timezone": "Asia/Tokyo"}
    assert [each.json() for each in wire.asked if each.method in ("POST", "PATCH")] == [
        {**wanted, "overlap": "queue", "catchup": "one", "jitter_seconds": 5, "paused": True},
        {"paused": True},
        {"paused": False},
        {"cron": "5 * * * *", "name": "other"},
    ]
    assert wire.lines[-1] == "DELETE /v1/schedules/s1"


def test_runs(wire: WireServer, cli: Cli) -> None:
    wire.will(Reply(200, {**RUN, "status": "pending"}), Reply(200, [RUN]))
    assert cli("schedule", "trigger", "s1").stdout == "r1\n"
    shown = cli("schedule", "runs", "s1").stdout
    assert "skipped" in shown and "why not" in shown


def test_json(wire: WireServer, cli: Cli) -> None:
    wire.will(Reply(200, SCHEDULE), Reply(200, [SCHEDULE]), Reply(200, SCHEDULE), Reply(200, RUN), Reply(200, [RUN]))
    create = ("create", "nightly", "--function", "f1", "--cron", "0 3 * * *")
    for words, expected in (
        (create, SCHEDULE),
        (("list",), [SCHEDULE]),
        (("get", "s1"), SCHEDULE),
        (("trigger", "s1"), RUN),
        (("runs", "s1"), [RUN]),
    ):
        assert json.loads(cli("schedule", *words, "--json").stdout) == expected
