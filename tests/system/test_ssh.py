"""SSH into real machines, by the command line and by OpenSSH's clients."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pandastack import Client, Sandbox
from tests.support.installation import COMMAND, Server, eventually

pytestmark = pytest.mark.skipif(shutil.which("ssh") is None, reason="OpenSSH's client is not installed")


def config_of(server: Server, sandbox: Sandbox, directory: Path) -> list[str]:
    """Arguments by which OpenSSH's programs know the sandbox as ``box``."""
    found = server.installation.json("ssh-config", sandbox.id)
    lines = ["Host box", *(f"  {name} {value}" for name, value in found["options"].items()), "  LogLevel ERROR"]
    path = directory / "ssh_config"
    path.write_text("\n".join(lines) + "\n")
    return ["-F", str(path)]


def test_a_command_by_the_command_line(server: Server, sandbox: Sandbox) -> None:
    eventually(lambda: server.installation.cli("ssh-config", sandbox.id).returncode == 0, 60, "the door answers")
    done = server.installation.cli("ssh", sandbox.id, "--", "echo $HOME $USER; hostname; echo err >&2; exit 3")
    assert done.returncode == 3, done.stderr
    assert done.stdout.splitlines() == ["/root root", sandbox.exec("hostname").stdout.strip()]
    assert "err" in done.stderr
    keys = server.installation.json("ssh-key", "list")
    assert len(keys) == 1 and keys[0]["last_used_at"]


def test_files_and_git(server: Server, sandbox: Sandbox, tmp_path: Path) -> None:
    options = config_of(server, sandbox, tmp_path)
    data = os.urandom(2 << 20)
    (tmp_path / "up").write_bytes(data)
    subprocess.run(["scp", *options, "-q", str(tmp_path / "up"), "box:/tmp/up"], check=True, timeout=120)
    subprocess.run(["scp", *options, "-q", "box:/tmp/up", str(tmp_path / "down")], check=True, timeout=120)
    assert (tmp_path / "down").read_bytes() == data
    batch = "mkdir /tmp/d\nput up /tmp/d/up\nrename /tmp/d/up /tmp/d/b\nln -s b /tmp/d/l\nchmod 600 /tmp/d/b\n"
    subprocess.run(["sftp", *options, "-b", "-", "box"], input=batch.encode(), check=True, timeout=120, cwd=tmp_path)
    assert sandbox.exec("stat -c '%a %s' /tmp/d/b; readlink /tmp/d/l").stdout == f"600 {len(data)}\nb\n"


def test_another_user_of_the_guest(server: Server, sandbox: Sandbox, tmp_path: Path) -> None:
    options = config_of(server, sandbox, tmp_path)
    argv = ["ssh", *options, "-o", f"User={sandbox.id}+nobody", "box", "id -un; touch /root/x"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)
    # That user's shell is one that refuses.
    assert "not available" in done.stdout or done.stdout.startswith("nobody")
    assert sandbox.exec("test -e /root/x").exit_code == 1


def test_a_port_of_the_guest(server: Server, sandbox: Sandbox, tmp_path: Path) -> None:
    options = config_of(server, sandbox, tmp_path)
    sandbox.exec("mkdir -p /srv/w && echo hello > /srv/w/index.html")
    serve = "python3 -m http.server -d /srv/w --bind 127.0.0.1 8099 >/dev/null 2>&1 & sleep 1; cat"
    process = subprocess.Popen(["ssh", *options, "box", serve], stdin=subprocess.PIPE)
    try:

        def asks() -> bool:
            request = b"GET /index.html HTTP/1.0\r\n\r\n"
            argv = ["ssh", *options, "-W", "127.0.0.1:8099", "box"]
            done = subprocess.run(argv, input=request, capture_output=True, timeout=60, check=False)
            return done.stdout.endswith(b"hello\n")

        eventually(asks, 60, "the port answers")
    finally:
        process.kill()
        process.wait(30)
        assert process.stdin is not None
        process.stdin.close()


def test_a_shell_outlives_a_hibernate_and_a_new_one_wakes(
    server: Server, client: Client, create: Callable[..., Sandbox], tmp_path: Path
) -> None:
    sandbox = create()
    options = config_of(server, sandbox, tmp_path)
    process = subprocess.Popen(["ssh", *options, "box", "bash"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None and process.stdout is not None
    with process:
        process.stdin.write(b"value=kept; echo $value $$\n")
        process.stdin.flush()
        first = process.stdout.readline().split()
        sandbox.hibernate()
        time.sleep(2)
        assert client.sandboxes.get(sandbox.id).status == "hibernated"  # an open connection does not wake it
        process.stdin.write(b"echo $value $$\n")
        process.stdin.flush()
        assert process.stdout.readline().split() == first
        process.stdin.write(b"exit 9\n")
        process.stdin.close()
        assert process.wait(60) == 9
    sandbox.hibernate()
    done = subprocess.run(["ssh", *options, "box", "echo awake"], capture_output=True, timeout=120, check=True)
    assert done.stdout == b"awake\n"


def test_a_deleted_key_opens_nothing(server: Server, sandbox: Sandbox, tmp_path: Path) -> None:
    options = config_of(server, sandbox, tmp_path)
    assert subprocess.run(["ssh", *options, "box", "true"], timeout=120, check=False).returncode == 0
    for key in server.installation.json("ssh-key", "list"):
        server.installation.json("ssh-key", "delete", key["id"])
    argv = ["ssh", *options, "-o", "BatchMode=yes", "box", "true"]
    assert subprocess.run(argv, timeout=120, check=False, capture_output=True).returncode == 255
    argv = [
        *COMMAND,
        "ssh-key",
        "add",
        str(server.installation.home / ".config/pandastack/ssh/id_ed25519.pub"),
        "--json",
    ]
    done = subprocess.run(argv, env=server.installation.environment, capture_output=True, check=True, timeout=60)
    assert json.loads(done.stdout)["fingerprint"].startswith("SHA256:")
    assert subprocess.run(["ssh", *options, "box", "true"], timeout=120, check=False).returncode == 0
