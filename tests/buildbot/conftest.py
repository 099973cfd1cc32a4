"""A real Buildbot master, and a pool whose prepared machine has the worker program."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pandastack import Client
from tests.support.buildbot import Master, Start
from tests.support.cached import cached, run
from tests.support.installation import Server

VERSION = "4.3.0"
ROOT = Path(__file__).parents[2]
BUILDBOT = "from buildbot.scripts.runner import run; run()"
TWISTD = "from twisted.scripts.twistd import run; run()"
"""Commands as programs: the environment has been moved to the cache, and its scripts would name where it was."""
GUEST_PYTHON = "3.11"
"""Of the template ``base``."""


@pytest.fixture(scope="session")
def buildbot() -> Path:
    """An environment with Buildbot, and what this package needs of others."""

    def install(home: Path) -> None:
        run(sys.executable, "-m", "venv", str(home))
        run(str(home / "bin/python"), "-m", "pip", "install", "--quiet", f"buildbot=={VERSION}", "httpx")

    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    return cached(f"buildbot-{VERSION}-py{version}", install) / "bin" / "python"


@pytest.fixture(scope="session")
def worker_program() -> Path:
    """``buildbot-worker`` for the guest's Python, as a directory of modules."""

    def install(home: Path) -> None:
        platforms = [f"--platform={each}" for each in ("manylinux2014_x86_64", "manylinux_2_28_x86_64")]
        argv = ["--only-binary=:all:", f"--python-version={GUEST_PYTHON}", *platforms, "--target", str(home / "site")]
        run(sys.executable, "-m", "pip", "install", "--quiet", *argv, f"buildbot-worker=={VERSION}")

    return cached(f"buildbot-worker-{VERSION}-py{GUEST_PYTHON}", install) / "site"


@pytest.fixture(scope="module")
def pool(client: Client, worker_program: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A pool without any network, whose checkout has brought the worker program along."""
    folder = tmp_path_factory.mktemp("checkout")
    shutil.copytree(worker_program, folder / "site")
    python = '#!/bin/sh\nPYTHONPATH=/opt/site exec python3 "$@"\n'
    (folder / "python").write_text(python)
    prepare = [
        "mv site /opt/site && install -m 755 python /opt/python && echo prepared > prepared",
        "/opt/python -c 'import buildbot_worker.bot, twisted.protocols.portforward'",
    ]
    client.runners.put("buildbot", prepare=prepare, network="none")
    client.runners.refresh("buildbot", folder)
    yield "buildbot"
    client.runners.delete("buildbot")


@pytest.fixture(scope="module")
def start(buildbot: Path, server: Server, pool: str, tmp_path_factory: pytest.TempPathFactory) -> Start:
    """``with start() as master``: a master on one directory, which the next one goes on with."""
    home = tmp_path_factory.mktemp("master")
    given = {"PYTHONPATH": f"{ROOT / 'src'}", "WORKER_PYTHON": "/opt/python", "PYTHONWARNINGS": "ignore"}
    environment = {
        **server.installation.environment,
        "PANDASTACK_API": server.url,
        "PANDASTACK_API_KEY": server.token,
        **given,
    }
    for made in (["create-master", "-c", "master.py", "."], ["upgrade-master", "."]):
        shutil.copy(Path(__file__).with_name("master.py"), home / "master.py")
        run(str(buildbot), "-c", BUILDBOT, *made, cwd=home, env=environment)

    @contextmanager
    def start() -> Iterator[Master]:
        options = ["--no_save", "--nodaemon", "--logfile=twistd.log", "--python=buildbot.tac"]
        twistd = [str(buildbot), "-c", TWISTD, *options]
        process = subprocess.Popen(
            twistd, cwd=home, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        master = Master(process)
        try:
            try:
                master.hear("ready")
            except AssertionError as error:
                raise AssertionError((home / "twistd.log").read_text()[-4000:]) from error
            yield master
        finally:
            process.terminate()
            process.communicate(timeout=60)

    return start
