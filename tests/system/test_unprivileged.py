"""Without root: the same sandboxes, with less between them, and said so."""

from __future__ import annotations

import json
import os
import shutil
import site
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

import pandastack
from pandastack import Client
from tests.support.installation import Install, Installation, Server

pytestmark = pytest.mark.root  # another user must be: without root, all tests are without it

NOBODY = 65534
BECOME = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--")
PROBE = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import pandastack'], check=True)"
"""Not only this process, which may have started with rights of root's: those that it starts need it too."""


@dataclass(frozen=True)
class Interpreter:
    """A Python that another user may start, and the environment in which it finds what is installed here."""

    path: str
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def works(self) -> bool:
        environment = {**os.environ, **self.environment}
        return subprocess.run([*BECOME, self.path, "-c", PROBE], env=environment, capture_output=True).returncode == 0


def interpreters() -> Iterator[Interpreter]:
    """The one that runs the tests, which may lie in root's home, then the system's of the same version."""
    yield Interpreter(sys.executable)
    packages = [str(Path(pandastack.__file__).parents[1]), *site.getsitepackages()]
    system = f"/usr/bin/python{sys.version_info.major}.{sys.version_info.minor}"
    yield Interpreter(system, {"PYTHONPATH": os.pathsep.join(packages)})


@pytest.fixture(scope="module")
def interpreter() -> Interpreter:
    if shutil.which("setpriv") is None:
        pytest.skip("this host has no setpriv")
    found = next((each for each in interpreters() if Path(each.path).exists() and each.works), None)
    if found is None:
        pytest.skip("another user may not read this checkout or its interpreter")
    return found


@pytest.fixture(scope="module")
def unprivileged(server: Server, install: Install, interpreter: Interpreter) -> Iterator[Server]:
    """A server of a user who is not root, with a template that root has built and given away."""
    given = install()
    runtime = given.home.parent / "run"
    runtime.mkdir(mode=0o700)
    _copy_template(server.installation, given, "base")
    for path in (given.home.parent, *given.home.parent.rglob("*")):
        os.chown(path, NOBODY, NOBODY)
    theirs = Installation(given.data, given.home, {"XDG_RUNTIME_DIR": str(runtime), **interpreter.environment})
    with theirs.serving(prefix=BECOME, command=(interpreter.path, "-m", "pandastack.cli")) as running:
        yield running
    assert given.machines() == []
    assert [path for path in runtime.rglob("*") if not path.is_dir()] == []


def _copy_template(source: Installation, target: Installation, name: str) -> None:
    record = source.layout.templates / f"{name}.json"
    version = json.loads(record.read_bytes())["version"]
    snapshots = target.layout.engine / "pool" / "snapshots"
    snapshots.mkdir(parents=True)
    snapshot = source.layout.engine / "pool" / "snapshots" / version
    subprocess.run(["cp", "-r", "--preserve=timestamps", "--sparse=always", snapshot, snapshots], check=True)
    target.layout.templates.mkdir()
    shutil.copy(record, target.layout.templates)


def test_sandboxes_work(unprivileged: Server) -> None:
    with Client(unprivileged.url, unprivileged.token) as client, client.sandboxes.create("base") as sandbox:
        sandbox.filesystem.write("/workspace/a", b"content")
        assert sandbox.exec("cat /workspace/a; id -un", check=True).stdout == "contentroot\n"
        with unprivileged.http() as http:
            pid = http.get(f"/sandboxes/{sandbox.id}/metrics").json()["pid"]
        assert Path(f"/proc/{pid}").stat().st_uid == NOBODY


def test_what_is_weaker_is_said(unprivileged: Server, interpreter: Interpreter) -> None:
    assert httpx.get(f"{unprivileged.url}/healthz").json()["status"] == "ok"
    argv = [*BECOME, interpreter.path, "-m", "pandastack.cli", "doctor", "--json"]
    done = subprocess.run(argv, env=unprivileged.installation.environment, capture_output=True, text=True)
    assert '"privileges",\n    "verdict": "warn"' in done.stdout
