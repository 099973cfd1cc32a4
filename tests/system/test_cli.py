"""The command line against a real server."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.installation import Installation, Server

PROGRAM = """
import pathlib, sys
print("hello from", pathlib.Path("/proc/sys/kernel/ostype").read_text().strip())
print("and an error", file=sys.stderr)
pathlib.Path("made.bin").write_bytes(bytes(range(256)))
pathlib.Path("/root/elsewhere.txt").write_text("elsewhere")
sys.exit(3)
"""


@pytest.fixture
def cli(server: Server, tmp_path: Path) -> Installation:
    """The owner's command line; it finds the server by the file that the server wrote for its owner."""
    (tmp_path / "program.py").write_text(PROGRAM)
    return server.installation


def test_run_and_get(cli: Installation, tmp_path: Path) -> None:
    fetched = ("--get", "made.bin", "--get", "/root/elsewhere.txt")
    ran = cli.cli("run", "program.py", "-t", "base", *fetched, cwd=tmp_path)
    assert (ran.returncode, ran.stdout) == (3, "hello from Linux\n")
    assert ran.stderr.splitlines() == ["and an error", "saved made.bin (256 bytes)", "saved elsewhere.txt (9 bytes)"]
    assert (tmp_path / "made.bin").read_bytes() == bytes(range(256))
    assert (tmp_path / "elsewhere.txt").read_text() == "elsewhere"


def test_run_as_json(cli: Installation, tmp_path: Path) -> None:
    ran = cli.cli("run", "program.py", "-t", "base", "--json", "--get", "missing", cwd=tmp_path)
    said = json.loads(ran.stdout)
    assert (ran.returncode, said["exit_code"], said["stdout"]) == (3, 3, "hello from Linux\n")
    assert "error" in said["artifacts"][0]
    assert said["sandbox_id"] not in [each["id"] for each in cli.json("sandbox", "list")]


def test_run_with_a_time_limit(cli: Installation, tmp_path: Path) -> None:
    (tmp_path / "forever.sh").write_text("while :; do sleep 1; done\n")
    before = cli.json("sandbox", "list")
    ran = cli.cli("run", "forever.sh", "-t", "base", "--timeout", "1", cwd=tmp_path)
    assert (ran.returncode, ran.stderr) == (124, "error: command timeout after 1s\n")
    assert cli.json("sandbox", "list") == before


def test_the_life_of_a_sandbox(cli: Installation, tmp_path: Path) -> None:
    created = cli.json("sandbox", "create", "-t", "base", "--ttl", "600", "--metadata", "owner=me")
    sandbox = created["id"]
    assert (created["status"], created["metadata"]["owner"]) == ("running", "me")
    assert cli.json("sandbox", "get", sandbox)["id"] == sandbox
    assert sandbox in cli.cli("sandbox", "list").stdout

    (tmp_path / "in").write_bytes(b"\x00\xffin")
    assert cli.json("sandbox", "cp", "in", f"{sandbox}:/workspace/", cwd=tmp_path)["bytes"] == 4
    ran = cli.cli("sandbox", "exec", "--json", sandbox, "cd /workspace && cat in in > out && wc -c < out")
    assert json.loads(ran.stdout) == {"exit_code": 0, "stdout": "8\n", "stderr": ""}
    assert cli.json("sandbox", "cp", f"{sandbox}:/workspace/out", "out", cwd=tmp_path)["bytes"] == 8
    assert (tmp_path / "out").read_bytes() == b"\x00\xffin" * 2
    assert cli.cli("sandbox", "exec", sandbox, "exit 9").returncode == 9

    assert cli.json("sandbox", "delete", sandbox) == {"deleted": [sandbox]}
    gone = cli.cli("sandbox", "get", sandbox, "--json")
    assert (gone.returncode, json.loads(gone.stderr)["code"]) == (1, "not_found")


def test_templates(cli: Installation) -> None:
    listed = {each["name"]: each for each in cli.json("template", "list")}
    assert {"base", "code-interpreter"} <= set(listed)
    assert listed["code-interpreter"]["base"] == "base"
    shown = cli.json("template", "show", "ubuntu-24.04")
    assert (shown["name"], shown["memory_mb"]) == ("base", 512)
    assert "kernel_sha256" in shown["meta"]
    assert "DESCRIPTION" in cli.cli("template", "list").stdout


def test_an_unknown_template(cli: Installation, tmp_path: Path) -> None:
    refused = cli.cli("run", "program.py", "-t", "no-such", cwd=tmp_path)
    assert refused.returncode == 1
    assert refused.stderr.startswith("error: unknown template 'no-such'\nhint: ")
