"""Services of templates run in every sandbox from its first moment on: after a wake, a boot and their death too."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from pandastack import Sandbox
from tests.support.installation import Install, Installation, eventually, serving
from tests.support.machines import pid_of

SETTINGS = """
memory_mb = 256
disk_mb = 512

[[services]]
name = "prepare"
command = "mkdir -p /srv/web && echo prepared > /srv/web/page"
restart = "no"
ready = { file = "/srv/web/page" }

[[services]]
name = "web"
command = "exec python3 -u -m http.server 8000"
user = "user"
cwd = "/srv/web"
ready = { port = 8000 }
"""

NEVER = """
memory_mb = 256
disk_mb = 512

[[services]]
name = "database"
command = "echo no space for the log >&2; exec sleep 600"
ready = { port = 5432, timeout_seconds = 1 }
"""

PAGE = "curl -fsS --max-time 20 http://127.0.0.1:8000/page"


def recipe(folder: Path, settings: str) -> str:
    folder.mkdir(parents=True)
    (folder / "Dockerfile").write_text("FROM base\n")
    (folder / "template.toml").write_text(settings)
    return str(folder)


@pytest.fixture(scope="module")
def place(install: Install, tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """An installation with a template that has services."""
    place = install(PANDASTACK_READY_MACHINES="1")
    place.build(recipe(tmp_path_factory.mktemp("recipes") / "served", SETTINGS))
    return place


def out(sandbox: Sandbox, cmd: str) -> str:
    return sandbox.exec(cmd, check=True).stdout


def test_a_service_runs_from_the_first_moment_on_and_always_again(place: Installation) -> None:
    with serving(place) as (server, client), server.http() as http:
        sandbox = client.sandboxes.create("served", persistent=True)
        assert out(sandbox, PAGE) == "prepared\n"
        pid = out(sandbox, "pgrep -f '^python3 -u -m http.server'")
        assert out(sandbox, f"ps -o user= -p {pid}") == "user\n"
        services = [each for each in sandbox.processes.list() if each.id.startswith("service-")]
        states = {each.id: each.info.status for each in services}
        assert states == {"service-prepare": "exited", "service-web": "running"}
        assert b'"GET /page HTTP/1.1" 200' in sandbox.processes.get("service-web").output(stream="stderr")

        sandbox.hibernate()
        assert out(sandbox, PAGE) == "prepared\n"
        assert out(sandbox, "pgrep -f '^python3 -u -m http.server'") == pid  # it has not been started again

        out(sandbox, f"kill -9 {pid}")
        eventually(lambda: sandbox.exec(PAGE).exit_code == 0, 60, "it serves again")
        assert b"[service ended with status 137; " in sandbox.processes.get("service-web").output(stream="stderr")

        out(sandbox, "echo changed > /srv/web/page; sync")
        os.kill(pid_of(http, sandbox), signal.SIGKILL)
        eventually(lambda: sandbox.refresh().status == "hibernated", 30, "its memory is lost")
        assert out(sandbox, PAGE) == "prepared\n"  # the boot ran both again before the first command
        assert sandbox.processes.get("service-web").info.status == "running"
        sandbox.kill()
    assert place.left_behind() == []


def test_a_service_that_is_never_ready_fails_the_build_with_its_log(place: Installation, tmp_path: Path) -> None:
    done = place.cli("template", "build", recipe(tmp_path / "never", NEVER), timeout=300)
    assert done.returncode == 1
    assert "error: " in done.stderr, done.stderr
    lines = [each.strip() for each in done.stderr[done.stderr.index("error: ") :].splitlines()]
    assert lines[0] == "error: service database was not ready within 1 s: nothing listens at port 5432"
    assert lines[1:] == ["no space for the log"]
    assert place.left_behind() == []
