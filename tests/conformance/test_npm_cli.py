"""The ``pandastack`` command of the npm package."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.official import NPM_PACKAGE, Cli
from tests.support.installation import eventually

UUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"


def told(cli: Cli, *arguments: str) -> Any:
    """What a command prints, as JSON."""
    done = cli(*arguments)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def made(npm_cli: Cli) -> Any:
    sandbox = told(npm_cli, "sandbox", "create", "--template", "base", "--ttl", "300", "--metadata", "a=b,c=d")
    yield sandbox
    npm_cli("sandbox", "delete", sandbox["id"])


def test_sandboxes(npm_cli: Cli, made: Any) -> None:
    assert (made["template"], made["status"], made["ttl_seconds"]) == ("base", "running", 300)
    assert {"a": "b", "c": "d"}.items() <= made["metadata"].items()
    assert told(npm_cli, "sandbox", "get", made["id"]) == made
    assert made["id"] in [each["id"] for each in told(npm_cli, "sandbox", "list")]
    assert npm_cli("sandbox", "kill", made["id"]).returncode == 0
    gone = npm_cli("sandbox", "get", made["id"])
    assert (gone.returncode, "not found" in gone.stderr) == (1, True)


def test_commands(npm_cli: Cli, made: Any) -> None:
    failed = npm_cli("sandbox", "exec", made["id"], "--", "echo out; echo err >&2; exit 3")
    assert (failed.stdout, failed.stderr, failed.returncode) == ("out\n", "err\n", 3)
    code = npm_cli("sandbox", "run-code", made["id"], "--language", "python", "--", "print(6*7)")
    assert (code.stdout, code.returncode) == ("42\n", 0)
    late = npm_cli("sandbox", "exec", made["id"], "--timeout", "1", "--", "sleep 60")
    assert late.returncode != 0 and "timed out" in late.stderr
    npm_cli("sandbox", "exec", made["id"], "--", "echo to the console > /dev/console")
    assert npm_cli("sandbox", "logs", made["id"]).stdout.endswith("to the console\n")


@pytest.mark.parametrize("command", [("ssh",), ("sandbox", "ssh")])
def test_a_shell(npm_cli: Cli, made: Any, command: tuple[str, ...]) -> None:
    """It never tells the shell's exit status, which is its own fault."""
    ran = npm_cli(*command, made["id"], input="stty size; echo $((6*7)); exit 3\n")
    assert ran.returncode == 0 and "24 80\n42\n" in ran.stdout
    gone = npm_cli(*command, "00000000-0000-4000-8000-000000000000")
    assert gone.returncode == 1 and "404" in gone.stderr


def test_files(npm_cli: Cli, made: Any, tmp_path: Path) -> None:
    sandbox = made["id"]
    (tmp_path / "local").write_text("ü local\n")
    assert told(npm_cli, "fs", "write", sandbox, "--path", "/root/x", "--content", "hello")["bytes"] == 5
    assert npm_cli("fs", "read", sandbox, "--path", "/root/x").stdout == "hello"
    assert npm_cli("fs", "write", sandbox, "--path", "/root/in", "--stdin", input="by pipe").returncode == 0
    assert npm_cli("fs", "read", sandbox, "--path", "/root/in").stdout == "by pipe"
    assert npm_cli("fs", "upload", sandbox, "--local", "local", "--remote", "/a/b/c").returncode == 0
    assert npm_cli("fs", "download", sandbox, "--remote", "/a/b/c", "--local", "copy").returncode == 0
    assert (tmp_path / "copy").read_text() == "ü local\n"
    assert npm_cli("fs", "read", sandbox, "--path", "/no/such").returncode == 1


def test_lifecycle(npm_cli: Cli, made: Any) -> None:
    sandbox = made["id"]

    def status() -> str:
        return str(told(npm_cli, "sandbox", "get", sandbox)["status"])

    for command, after in (
        ("pause", "paused"),
        ("resume", "running"),
        ("hibernate", "hibernated"),
        ("wake", "running"),
    ):
        assert npm_cli("sandbox", command, sandbox).returncode == 0
        assert status() == after
    assert told(npm_cli, "sandbox", "set-ttl", sandbox, "--ttl", "100")["ttl_seconds"] == 100
    assert told(npm_cli, "sandbox", "set-persistent", sandbox, "--persistent", "true")["persistent"] is True
    limits = told(npm_cli, "sandbox", "lifecycle", sandbox)
    assert (limits["ttl_seconds"], limits["persistent"]) == (100, True)
    preview = npm_cli("sandbox", "preview-url", sandbox, "--port", "80").stdout
    assert re.search(rf"https://80-{sandbox}\.", preview)


def test_snapshots_and_copies(npm_cli: Cli, made: Any) -> None:
    sandbox = made["id"]
    snapshot = told(npm_cli, "sandbox", "snapshot", sandbox)["id"]
    assert snapshot in [each["id"] for each in told(npm_cli, "snapshot", "list")]
    assert told(npm_cli, "snapshot", "get", snapshot)["sandbox_id"] == sandbox
    restored = told(npm_cli, "sandbox", "create", "--from-snapshot", snapshot)
    assert restored["from_snapshot"] == snapshot
    assert npm_cli("snapshot", "delete", snapshot).returncode == 0
    child = told(npm_cli, "sandbox", "fork", sandbox, "--metadata", "role=child")
    assert (child["metadata"]["role"], child["metadata"]["fork_parent_id"]) == ("child", sandbox)
    tree = told(npm_cli, "sandbox", "fork-tree", sandbox, "--count", "2")
    assert [each["metadata"]["fork_index"] for each in tree] == ["0", "1"]
    assert npm_cli("sandbox", "promote", tree[0]["id"]).returncode == 0
    for each in (restored, child, *tree):
        assert npm_cli("sandbox", "delete", each["id"]).returncode == 0


SCRIPT = "import os\nprint('key', os.environ.get('KEY'))\n"
"""A function that says whether it was run by the server, which gives it its environment."""


def test_functions_and_schedules(npm_cli: Cli, npm_package: Path, tmp_path: Path) -> None:
    """Every command of the two nouns. Its ``invoke`` runs the code in a sandbox of its own, without the environment."""
    ran = set[tuple[str, str]]()

    def cli(*arguments: str) -> str:
        ran.add((arguments[0], arguments[1]))
        done = npm_cli(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    (tmp_path / "script.py").write_text(SCRIPT)
    given = ("--runtime", "python", "--template", "base", "--entrypoint", "script.py", "--env", "KEY=value", "--public")
    made = json.loads(cli("function", "deploy", "script.py", "--name", "by npm", *given))
    one = made["id"]
    assert (made["kind"], made["version"], made["public"], made["entrypoint"]) == ("script", 1, True, "script.py")
    assert json.loads(cli("function", "get", one))["env"] == {"KEY": "value"}
    assert one in [each["id"] for each in json.loads(cli("function", "list"))]
    told = json.loads(cli("function", "invoke", one))
    assert (told["status"], told["exit_code"], told["stdout"]) == ("success", 0, "key None\n")
    assert json.loads(cli("function", "update", one, "--public", "false", "--env", "KEY=new"))["public"] is False
    _schedule(cli, one)
    by_server, by_client = json.loads(cli("function", "runs", one))
    assert (by_client["stdout"], by_client["schedule_id"], by_client["status"]) == ("key None\n", None, "success")
    assert (by_server["stdout"], by_server["status"]) == ("key new\n", "success")
    assert "Invocations:    2" in cli("function", "metrics", "by npm")
    assert cli("function", "delete", one) == f"deleted function {one}\n"
    text = (npm_package / "node_modules" / NPM_PACKAGE / "dist" / "cli.js").read_text()
    all_commands = re.findall(r'if \(sub === "(\w+)"\) return (function|schedule)[A-Z]', text)
    assert ran == {(noun, command) for command, noun in all_commands}


def _schedule(cli: Callable[..., str], function: str) -> None:
    """Each command for schedules; one run of the function."""
    made = json.loads(cli("schedule", "create", "--name", "by npm", "--fn", function, "--cron", "0 3 * * *"))
    one = made["id"]
    assert json.loads(cli("schedule", "get", one))["next_run_at"] == made["next_run_at"]
    assert one in [each["id"] for each in json.loads(cli("schedule", "list"))]
    assert json.loads(cli("schedule", "pause", one))["paused"] is True
    assert json.loads(cli("schedule", "resume", one))["paused"] is False
    assert json.loads(cli("schedule", "update", one, "--cron", "30 4 * * 1"))["cron"] == "30 4 * * 1"
    run = json.loads(cli("schedule", "trigger", one))["run_id"]

    def has_ended() -> bool:
        (found,) = json.loads(cli("schedule", "runs", one))
        return bool(found["run_id"] == run and found["status"] == "success")

    eventually(has_ended, 60, "the run ends")
    assert cli("schedule", "delete", one) == f"deleted schedule {one}\n"


def test_account_and_templates(npm_cli: Cli) -> None:
    assert told(npm_cli, "me")["auth_method"] == told(npm_cli, "whoami")["auth_method"] == "token"
    made = told(npm_cli, "token", "create", "--label", "by the cli")
    assert made["prefix"] in [each["prefix"] for each in told(npm_cli, "token", "list")]
    assert npm_cli("token", "revoke", made["prefix"]).returncode == 0
    assert {"base", "code-interpreter"} <= {each["name"] for each in told(npm_cli, "template", "list")}
    assert told(npm_cli, "template", "get", "base")["name"] == "base"
    assert npm_cli("template", "get", "none").returncode == 1
