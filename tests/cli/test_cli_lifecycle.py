"""What the commands about a sandbox's life, and those about snapshots, send and print."""

from __future__ import annotations

import json

import pytest

from tests.sdk.wire_server import RECORD, Reply, WireServer
from tests.support.cli import Cli

HERE = "/v1/sandboxes/0b5f"
SNAPSHOT = {"id": "s1", "sandbox_id": "0b5f", "template": "base", "size_bytes": 3 << 20, "created_at": "now"}
CHECKPOINT = {
    "id": "k1",
    "created_at": "now",
    "label": "clean",
    "size_bytes": 9 << 20,
    "dirty_bytes": 4 << 20,
    "automatic": False,
    "commands": ["make", "make install"],
    "command_count": 5,
}
FOUND = Reply(200, RECORD)


@pytest.mark.parametrize(
    ("verb", "status"),
    [("pause", "paused"), ("resume", "running"), ("hibernate", "hibernated"), ("wake", "running")],
)
def test_verbs_print_the_new_status(cli: Cli, wire: WireServer, verb: str, status: str) -> None:
    wire.will(FOUND, Reply(204), FOUND, Reply(204))
    assert cli("sandbox", verb, "0b5f").stdout == f"{status}\n"
    assert json.loads(cli("sandbox", verb, "0b5f", "--json").stdout) == {"id": "0b5f", "status": status}
    assert wire.lines[:2] == [f"GET {HERE}", f"POST {HERE}/{verb}"]


def test_a_refused_verb_is_an_error(cli: Cli, wire: WireServer) -> None:
    wire.will(FOUND, Reply(409, {"error": "it is stopping"}))
    result = cli("sandbox", "pause", "0b5f")
    assert (result.exit_code, result.stdout, result.stderr) == (1, "", "error: it is stopping\n")


def test_set_ttl(cli: Cli, wire: WireServer) -> None:
    answer = Reply(200, {"ttl_seconds": 90, "persistent": False, "idle_seconds": 0})
    wire.will(FOUND, answer, FOUND, answer)
    assert cli("sandbox", "set-ttl", "0b5f", "90").stdout.splitlines()[0].split() == ["ttl_seconds", "90"]
    assert json.loads(cli("sandbox", "set-ttl", "0b5f", "90", "--json").stdout)["persistent"] is False
    assert wire.asked[1].json() == {"ttl_seconds": 90}


def test_wrong_numbers_send_nothing(cli: Cli, wire: WireServer) -> None:
    assert cli("sandbox", "set-ttl", "0b5f", "--", "-1").exit_code == 2
    assert cli("sandbox", "fork", "0b5f", "--count", "17").exit_code == 2
    assert wire.asked == []


def test_snapshot_and_what_is_made_of_it(cli: Cli, wire: WireServer) -> None:
    wire.will(FOUND, Reply(201, SNAPSHOT), FOUND, Reply(201, SNAPSHOT), Reply(201, RECORD))
    assert cli("sandbox", "snapshot", "0b5f").stdout == "s1\n"
    assert json.loads(cli("sandbox", "snapshot", "0b5f", "--json").stdout) == {"id": "s1", "sandbox_id": "0b5f"}
    assert cli("sandbox", "create", "--from-snapshot", "s1").stdout == "0b5f\n"
    assert wire.asked[-1].json()["from_snapshot"] == "s1"


def test_fork(cli: Cli, wire: WireServer) -> None:
    child, other = RECORD | {"id": "c1"}, RECORD | {"id": "c2"}
    wire.will(Reply(201, {"sandbox": child}), Reply(201, {"children": [child, other]}))
    assert cli("sandbox", "fork", "0b5f").stdout == "c1\n"
    records = json.loads(cli("sandbox", "fork", "0b5f", "--count", "2", "--json").stdout)
    assert [each["id"] for each in records] == ["c1", "c2"]
    assert wire.lines == [f"POST {HERE}/fork", f"POST {HERE}/fork-tree"]
    assert wire.asked[1].json() == {"count": 2}


def test_fewer_copies_than_asked_for_are_an_error(cli: Cli, wire: WireServer) -> None:
    wire.will(Reply(201, {"children": [RECORD | {"id": "c1"}]}))
    result = cli("sandbox", "fork", "0b5f", "--count", "3")
    assert (result.exit_code, result.stdout) == (1, "c1\n")
    assert result.stderr == "error: only 1 of 3 copies fit\n"


def test_promote(cli: Cli, wire: WireServer) -> None:
    answer = {"winner": "0b5f", "tree_id": "t", "deleted": ["c2", "c3"], "failures": {}}
    wire.will(Reply(200, answer), Reply(200, answer))
    assert cli("sandbox", "promote", "0b5f", "--cleanup").stdout == "c2\nc3\n"
    assert json.loads(cli("sandbox", "promote", "0b5f", "--json").stdout) == answer
    assert [each.json() for each in wire.asked] == [{"cleanup_siblings": True}, {"cleanup_siblings": False}]


def test_promote_reports_what_could_not_be_deleted(cli: Cli, wire: WireServer) -> None:
    wire.will(Reply(200, {"winner": "0b5f", "tree_id": "t", "deleted": ["c2"], "failures": {"c3": "stuck"}}))
    result = cli("sandbox", "promote", "0b5f", "--cleanup")
    assert (result.exit_code, result.stdout) == (1, "c2\n")
    assert result.stderr == "error: c3 could not be deleted: stuck\n"


def test_checkpoint_timeline_and_rewind(cli: Cli, wire: WireServer) -> None:
    wire.will(FOUND, Reply(201, CHECKPOINT), FOUND, Reply(201, CHECKPOINT))
    assert cli("sandbox", "checkpoint", "0b5f", "--label", "clean").stdout == "k1\n"
    assert json.loads(cli("sandbox", "checkpoint", "0b5f", "--json").stdout) == CHECKPOINT
    assert (wire.asked[1].json(), wire.asked[3].json()) == ({"label": "clean"}, {})
    listed = Reply(200, {"checkpoints": [CHECKPOINT]})
    wire.will(FOUND, listed, FOUND, listed)
    header, row = cli("sandbox", "timeline", "0b5f").stdout.splitlines()
    assert header.split() == ["ID", "CREATED", "SIZE", "CHANGED", "LABEL", "RAN"]
    assert " ".join(row.split()) == "k1 now 9 MB 4 MB clean (3 more); make; make install"
    assert json.loads(cli("sandbox", "timeline", "0b5f", "--json").stdout) == [CHECKPOINT]
    wire.will(FOUND, FOUND, FOUND, FOUND)
    assert cli("sandbox", "rewind", "0b5f", "k1").stdout == "running\n"
    assert wire.lines[-1] == f"POST {HERE}/checkpoints/k1/rewind"
    assert json.loads(cli("sandbox", "rewind", "0b5f", "k1", "--json").stdout)["id"] == "0b5f"


def test_delete_of_checkpoints_goes_on_after_a_failure(cli: Cli, wire: WireServer) -> None:
    wire.will(FOUND, Reply(404, {"error": "checkpoint not found"}), Reply(404, {"error": "gone"}), Reply(204))
    result = cli("sandbox", "delete-checkpoint", "0b5f", "k1", "k2", "--json")
    assert (result.exit_code, json.loads(result.stdout)) == (1, {"deleted": ["k2"]})
    assert wire.lines[-1] == f"DELETE {HERE}/checkpoints/k2"


def test_fork_of_a_checkpoint(cli: Cli, wire: WireServer) -> None:
    wire.will(FOUND, Reply(201, RECORD | {"id": "c1"}))
    assert cli("sandbox", "fork", "0b5f", "--checkpoint", "k1").stdout == "c1\n"
    assert wire.lines[-1] == f"POST {HERE}/checkpoints/k1/fork"
    assert cli("sandbox", "fork", "0b5f", "--checkpoint", "k1", "--count", "2").exit_code == 2


def test_what_a_create_says_of_the_life(cli: Cli, wire: WireServer) -> None:
    wire.will(Reply(201, RECORD), Reply(201, RECORD))
    options = ("--on-expire", "hibernate", "--checkpoint-every", "60", "--checkpoint-after-exec")
    assert cli("sandbox", "create", "-t", "base", *options).stdout == "0b5f\n"
    assert cli("sandbox", "create", "-t", "base").stdout == "0b5f\n"
    own = {"on_expire": "hibernate", "checkpoint_every": 60.0, "checkpoint_after_exec": True}
    assert [each.json() for each in wire.asked] == [{"template": "base", **own}, {"template": "base"}]
    assert cli("sandbox", "create", "--on-expire", "explode").exit_code == 2


def test_lifecycle_shows_and_changes(cli: Cli, wire: WireServer) -> None:
    answer = Reply(200, {"ttl_seconds": 90, "checkpoint_every": None, "checkpoint_after_exec": True})
    wire.will(FOUND, answer, FOUND, answer)
    assert cli("sandbox", "lifecycle", "0b5f").stdout.splitlines()[0].split() == ["ttl_seconds", "90"]
    options = ("--checkpoint-every", "0", "--checkpoint-after-exec", "--not-persistent", "--ttl", "90")
    assert json.loads(cli("sandbox", "lifecycle", "0b5f", *options, "--json").stdout)["checkpoint_after_exec"] is True
    assert wire.lines[1] == f"GET {HERE}/lifecycle"
    body = {"ttl_seconds": 90, "persistent": False, "checkpoint_every": 0.0, "checkpoint_after_exec": True}
    assert wire.asked[3].json() == body


def test_snapshots(cli: Cli, wire: WireServer) -> None:
    listed = Reply(200, {"snapshots": [SNAPSHOT]})
    wire.will(listed, listed, Reply(200, SNAPSHOT), Reply(200, SNAPSHOT))
    header, row = cli("snapshot", "list").stdout.splitlines()
    assert header.split() == ["ID", "SANDBOX", "TEMPLATE", "SIZE", "CREATED"]
    assert row.split() == ["s1", "0b5f", "base", "3", "MB", "now"]
    assert json.loads(cli("snapshot", "list", "--sandbox", "0b5f", "--json").stdout) == [SNAPSHOT]
    assert "template    base\n" in cli("snapshot", "get", "s1").stdout
    assert json.loads(cli("snapshot", "get", "s1", "--json").stdout) == SNAPSHOT
    assert wire.lines[1] == "GET /v1/snapshots?sandbox_id=0b5f"


def test_delete_of_snapshots_goes_on_after_a_failure(cli: Cli, wire: WireServer) -> None:
    gone = Reply(404, {"error": "no such snapshot"})
    wire.will(gone, gone, Reply(204))
    result = cli("snapshot", "delete", "s1", "s2", "--json")
    assert (result.exit_code, json.loads(result.stdout)) == (1, {"deleted": ["s2"]})
    assert json.loads(result.stderr)["error"] == "no such snapshot"
