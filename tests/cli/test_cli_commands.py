"""What each command sends, prints and exits with."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from pandastack.cli.sandbox.run import command_for
from tests.sdk.wire_server import RECORD, Asked, Reply, WireServer, sse
from tests.support.cli import Cli

HERE = "/v1/sandboxes/0b5f"
TEMPLATE = {
    "name": "base",
    "cpu": 1,
    "memory_mb": 256,
    "size_bytes": 3 << 20,
    "tools": ["git", "curl"],
    "meta": {"bake_seconds": 9.2, "state": "stale", "state_reason": "another kernel"},
}
DONE = sse(("stdout", {"chunk": "out\n"}), ("stderr", {"chunk": "err\n"}), ("exit", {"exit_code": 0}))


def failed(status: int) -> bytes:
    return sse(("stdout", {"chunk": "out\n"}), ("exit", {"exit_code": status}))


def test_create_prints_the_id(cli: Cli, wire: WireServer) -> None:
    wire.will(Reply(201, RECORD), Reply(201, RECORD))
    options = ["-t", "base", "--ttl", "60", "--persistent", "--metadata", "a=b=c", "--metadata", "d="]
    assert cli("sandbox", "create", *options).stdout == "0b5f\n"
    sent = {"template": "base", "ttl_seconds": 60, "persistent": True, "metadata": {"a": "b=c", "d": ""}}
    assert wire.asked[0].json() == sent
    assert json.loads(cli("sandbox", "create", "--json").stdout)["cpu"] == 2


def test_create_tells_that_it_waits(cli: Cli, wire: WireServer) -> None:
    wire.will(Reply(503, {"error": "no room"}, {"Retry-After": "0"}), Reply(201, RECORD))
    result = cli("sandbox", "create")
    assert result.stdout == "0b5f\n"
    assert result.stderr.startswith("no room; retrying in")


def test_list_is_a_table_or_json(cli: Cli, wire: WireServer) -> None:
    wire.will(Reply(200, [RECORD]), Reply(200, [RECORD]), Reply(200, []))
    header, row = cli("sandbox", "list").stdout.splitlines()
    assert header.split() == ["ID", "TEMPLATE", "STATUS", "CPU", "MEMORY", "CREATED"]
    assert row.split() == ["0b5f", "base", "running", "2", "256", "MB", "-"]
    (record,) = json.loads(cli("sandbox", "list", "--json").stdout)
    assert record["id"] == "0b5f" and "_client" not in record
    assert json.loads(cli("sandbox", "list", "--json").stdout) == []


def test_list_takes_filters(cli: Cli, wire: WireServer) -> None:
    wire.will(Reply(200, []))
    cli("sandbox", "list", "--filter", "status=running", "--filter", "metadata.a.b=c=d", "--filter", "status=paused")
    assert wire.lines == ["GET /v1/sandboxes?metadata.a.b=c%3Dd&status=running&status=paused"]
    for wrong in ("running", "name=x", "metadata.a", "metadata.=x"):
        refused = cli("sandbox", "list", "--filter", wrong)
        assert refused.exit_code == 2 and "--filter" in refused.stderr


def test_a_table_in_a_pipe_is_never_cut(cli: Cli, wire: WireServer) -> None:
    long = "x" * 300
    wire.will(Reply(200, [TEMPLATE | {"description": f"[bold]{long}"}]))
    assert f"[bold]{long}" in cli("template", "list").stdout


def test_get(cli: Cli, wire: WireServer) -> None:
    wire.will(Reply(200, RECORD | {"metadata": {"a": "b"}}), Reply(200, RECORD))
    lines = dict(line.split(maxsplit=1) for line in cli("sandbox", "get", "0b5f").stdout.splitlines())
    assert (lines["id"], lines["metadata"], lines["persistent"]) == ("0b5f", "a=b", "False")
    assert json.loads(cli("sandbox", "get", "0b5f", "--json").stdout)["memory_mb"] == 256


@pytest.mark.parametrize(
    ("words", "cmd"),
    [
        (["echo $HOME | wc"], "echo $HOME | wc"),
        (["ls", "-l", "a b"], "ls -l 'a b'"),
        (["--", "ls", "--json"], "ls --json"),
        (["ls", "--json", "--timeout", "x"], "ls --json --timeout x"),
    ],
)
def test_exec_passes_words_on(cli: Cli, wire: WireServer, words: list[str], cmd: str) -> None:
    wire.will(Reply(200, RECORD), Reply(200, DONE))
    result = cli("sandbox", "exec", "--timeout", "7", "0b5f", *words)
    assert (result.exit_code, result.stdout, result.stderr) == (0, "out\n", "err\n")
    assert wire.asked[1].json() == {"cmd": cmd, "timeout_seconds": 7}


def test_exec_exits_as_the_command_did(cli: Cli, wire: WireServer) -> None:
    wire.will(Reply(200, RECORD), Reply(200, failed(42)), Reply(200, RECORD), Reply(200, failed(42)))
    assert cli("sandbox", "exec", "0b5f", "x").exit_code == 42
    result = cli("sandbox", "exec", "--json", "0b5f", "x")
    assert (result.exit_code, json.loads(result.stdout)) == (
        42,
        {"exit_code": 42, "stdout": "out\n", "stderr": ""},
    )


def test_exec_exits_with_124_after_a_timeout(cli: Cli, wire: WireServer) -> None:
    wire.will(Reply(200, RECORD), Reply(200, sse(("error", {"error": "command timeout after 1s"}))))
    result = cli("sandbox", "exec", "--timeout", "1", "0b5f", "sleep 9")
    assert (result.exit_code, result.stderr) == (124, "error: command timeout after 1s\n")


def test_cp_in_and_out(cli: Cli, wire: WireServer) -> None:
    Path("a:b").write_bytes(b"\x00\xff")
    Path("dir").mkdir()
    wire.will(Reply(200, RECORD), Reply(200, {"path": "/w/a:b", "bytes": 2}))
    assert json.loads(cli("sandbox", "cp", "./a:b", "0b5f:/w/", "--json").stdout)["bytes"] == 2
    assert wire.asked[1] == Asked("PUT", f"{HERE}/fs?path=%2Fw%2Fa%3Ab", wire.asked[1].headers, b"\x00\xff")
    wire.will(Reply(200, RECORD), Reply(200, b"\x01\x02"))
    assert cli("sandbox", "cp", "0b5f:/w/c", "dir").exit_code == 0
    assert Path("dir/c").read_bytes() == b"\x01\x02"


def test_cp_of_a_missing_local_file_sends_nothing(cli: Cli, wire: WireServer) -> None:
    result = cli("sandbox", "cp", "nothing", "0b5f:/w/x")
    assert (result.exit_code, result.stderr) == (1, "error: cannot read nothing: No such file or directory\n")
    assert wire.asked == []


def test_delete_goes_on_after_a_failure(cli: Cli, wire: WireServer) -> None:
    gone = Reply(404, {"error": "no such sandbox"})
    wire.will(gone, gone, Reply(204))
    result = cli("sandbox", "delete", "a", "b", "--json")
    assert (result.exit_code, json.loads(result.stdout)) == (1, {"deleted": ["b"]})
    assert json.loads(result.stderr)["error"] == "no such sandbox"


def test_templates(cli: Cli, wire: WireServer) -> None:
    own = {**TEMPLATE, "name": "app", "is_global": False, "workspace": "acme"}
    wire.will(Reply(200, [TEMPLATE, own]), Reply(200, [TEMPLATE]), Reply(200, TEMPLATE), Reply(200, TEMPLATE))
    listed = cli("template", "list")
    assert listed.stderr == "base is stale: another kernel\napp is stale: another kernel\n"
    shown = [line.split() for line in listed.stdout.splitlines()[1:]]
    assert shown[0] == ["base", "everybody's", "1", "256", "MB", "3", "MB", "9.2", "s", "stale", "-"]
    assert shown[1][:2] == ["app", "workspace's"]
    assert json.loads(cli("template", "list", "--json").stdout)[0]["size_bytes"] == 3 << 20
    assert "tools       git curl\n" in cli("template", "show", "base").stdout
    assert json.loads(cli("template", "show", "base", "--json").stdout)["tools"] == ["git", "curl"]


def test_a_template_of_the_server_is_not_deleted_and_the_others_are(cli: Cli, wire: WireServer) -> None:
    wire.will(Reply(403, {"error": "base is a template of the server", "code": "forbidden"}), Reply(204))
    result = cli("template", "delete", "base", "app", "--json")
    assert (result.exit_code, json.loads(result.stdout)) == (1, {"deleted": ["app"]})
    assert json.loads(result.stderr)["error"] == "base is a template of the server"


@pytest.mark.parametrize(
    ("name", "cmd"),
    [
        ("a.py", "cd /workspace && exec python3 -u ./a.py"),
        ("it's.sh", "cd /workspace && exec bash './it'\"'\"'s.sh'"),
        ("-x.js", "cd /workspace && exec node ./-x.js"),
        ("prog", "cd /workspace && chmod +x ./prog && exec ./prog"),
    ],
)
def test_run_chooses_by_extension(name: str, cmd: str) -> None:
    assert command_for(name) == cmd


@pytest.fixture
def program() -> Path:
    path = Path("p.py")
    path.write_text("print('out')\n")
    return path


def test_run(cli: Cli, wire: WireServer, program: Path) -> None:
    wire.will(Reply(201, RECORD), Reply(200, {}), Reply(200, DONE), Reply(200, b"PNG"), Reply(204))
    result = cli("run", "p.py", "--timeout", "9", "--get", "out/chart.png", "-t", "base")
    assert (result.exit_code, result.stdout) == (0, "out\n")
    assert result.stderr == "err\nsaved chart.png (3 bytes)\n"
    assert Path("chart.png").read_bytes() == b"PNG"
    assert wire.lines == [
        "POST /v1/sandboxes",
        f"PUT {HERE}/fs?path=%2Fworkspace%2Fp.py",
        f"POST {HERE}/exec/stream",
        f"GET {HERE}/fs?path=%2Fworkspace%2Fout%2Fchart.png",
        f"DELETE {HERE}",
    ]
    assert wire.asked[0].json() == {"template": "base", "ttl_seconds": 300}
    assert wire.asked[2].json()["timeout_seconds"] == 9


def test_run_as_json(cli: Cli, wire: WireServer, program: Path) -> None:
    missing = Reply(404, {"error": "no such file"})
    wire.will(
        Reply(201, RECORD),
        Reply(200, {}),
        Reply(200, failed(3)),
        Reply(200, b"12"),
        missing,
        missing,
        Reply(204),
    )
    result = cli("run", "p.py", "--get", "/tmp/a", "--get", "b", "--json")
    assert (result.exit_code, result.stderr) == (3, "")
    assert json.loads(result.stdout) == {
        "sandbox_id": "0b5f",
        "template": "base",
        "exit_code": 3,
        "stdout": "out\n",
        "stderr": "",
        "artifacts": [
            {"path": "/tmp/a", "saved_as": "a", "bytes": 2},
            {"path": "/workspace/b", "saved_as": "b", "error": "no such file"},
        ],
    }


def test_run_fails_when_only_the_artifact_is_missing(cli: Cli, wire: WireServer, program: Path) -> None:
    missing = Reply(404, {"error": "no such file"})
    wire.will(Reply(201, RECORD), Reply(200, {}), Reply(200, DONE), missing, missing, Reply(204))
    result = cli("run", "p.py", "--get", "b")
    assert (result.exit_code, result.stderr) == (1, "err\nerror: no such file\n")


@pytest.mark.parametrize(
    ("replies", "status"),
    [
        ([Reply(507, {"error": "the guest's disk is full"})], 1),
        ([Reply(200, {}), Reply(200, sse(("error", {"error": "command timeout after 9s"})))], 124),
        ([Reply(200, {}), Reply(200, sse(("stdout", {"chunk": "x"})), cut=True)], 1),
    ],
)
def test_run_always_deletes(cli: Cli, wire: WireServer, program: Path, replies: list[Reply], status: int) -> None:
    wire.will(Reply(201, RECORD), *replies, Reply(204))
    assert cli("run", "p.py").exit_code == status
    assert wire.lines[-1] == f"DELETE {HERE}"


def test_run_deletes_when_it_is_told_to_end(
    cli: Cli, wire: WireServer, program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ended(*arguments: Any, **options: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr("pandastack.cli.sandbox.run.follow", ended)
    wire.will(Reply(201, RECORD), Reply(200, {}), Reply(204))
    assert cli("run", "p.py").exit_code == 128 + signal.SIGTERM
    assert wire.lines[-1] == f"DELETE {HERE}"
    assert signal.getsignal(signal.SIGTERM) is before
