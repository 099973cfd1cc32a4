"""Without root: the same sandboxes, with less between them, and said so."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from pandastack import Client
from tests.support.installation import Install, Installation, Server

pytestmark = pytest.mark.root  # another user must be: without root, all tests are without it

NOBODY = 65534
BECOME = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--")


@pytest.fixture(scope="module")
def unprivileged(server: Server, install: Install) -> Iterator[Server]:
    """A server of a user who is not root, with a template that root has built and given away."""
    if shutil.which("setpriv") is None:
        pytest.skip("this host has no setpriv")
    if subprocess.run([*BECOME, sys.executable, "-c", "import pandastack"], capture_output=True).returncode != 0:
        pytest.skip("another user may not read this checkout or its interpreter")
    given = install()
    runtime = given.home.parent / "run"
    runtime.mkdir(mode=0o700)
    _copy_template(server.installation, given, "base")
    for path in (given.home.parent, *given.home.parent.rglob("*")):
        os.chown(path, NOBODY, NOBODY)
    theirs = Installation(given.data, given.home, {"XDG_RUNTIME_DIR": str(runtime)})
    with theirs.serving(prefix=BECOME) as running:
        yield running
    assert given.machines() == []
    assert [path for path in runtime.rglob("*") if not path.is_dir()] == []


def _copy_template(source: Installation, target: Installation, name: str) -> None:
    pool = target.layout.engine / "pool"
    pool.mkdir(parents=True)
    for part in ("snapshots", "images"):
        copy = [
            "cp",
            "-r",
            "--preserve=timestamps",
            "--sparse=always",
            str(source.layout.engine / "pool" / part),
            str(pool),
        ]
        subprocess.run(copy, check=True)
    target.layout.templates.mkdir()
    shutil.copy(source.layout.templates / f"{name}.json", target.layout.templates)


def test_sandboxes_work(unprivileged: Server) -> None:
    with Client(unprivileged.url, unprivileged.token) as client, client.sandboxes.create("base") as sandbox:
        sandbox.filesystem.write("/workspace/a", b"content")
        assert sandbox.exec("cat /workspace/a; id -un", check=True).stdout == "contentroot\n"
        pid = unprivileged.http().get(f"/sandboxes/{sandbox.id}/metrics").json()["pid"]
        assert Path(f"/proc/{pid}").stat().st_uid == NOBODY


def test_what_is_weaker_is_said(unprivileged: Server) -> None:
    assert httpx.get(f"{unprivileged.url}/healthz").json()["status"] == "ok"
    argv = [*BECOME, sys.executable, "-m", "pandastack.cli", "doctor", "--json"]
    done = subprocess.run(argv, env=unprivileged.installation.environment, capture_output=True, text=True)
    assert '"privileges",\n    "verdict": "warn"' in done.stdout
