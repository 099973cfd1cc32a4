"""The examples that need databases, as they are shipped."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.installation import Install, Server

EXAMPLES = Path(__file__).parents[2] / "examples"

pytestmark = pytest.mark.skipif(shutil.which("psql") is None, reason="this host has no psql")


@pytest.fixture(scope="module")
def server(install: Install) -> Iterator[Server]:
    with install("postgres", PANDASTACK_READY_MACHINES="1").serving() as server:
        yield server


def output(server: Server, folder: Path, *argv: str) -> str:
    """What a program of the examples prints. It must succeed, and leave no database."""
    address = {"PANDASTACK_API": server.url, "PANDASTACK_API_KEY": server.token}
    environment = {**os.environ, **server.installation.environment, **address}
    argv = (sys.executable, *argv)
    done = subprocess.run(argv, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    with server.http() as http:
        assert http.get("/databases").json() == []
    return done.stdout


def test_a_migration_is_tried_on_a_copy(server: Server) -> None:
    assert output(server, EXAMPLES, "database.py") == "in the copy: numeric 12.50\nin the database: text\n"


def test_of_several_attempts_the_best_is_kept(server: Server) -> None:
    assert output(server, EXAMPLES, "attempts.py") == (
        "the best attempt: an index on both\n"
        "cheaper than nothing: True\n"
        "answers the same: True\n"
        "kept: attempt: an index on both, example\n"
    )


def test_each_test_has_a_database(server: Server, tmp_path: Path) -> None:
    shutil.copy(EXAMPLES / "database_test.py", tmp_path)
    printed = output(server, tmp_path, "-m", "pytest", "-q", "-p", "no:cacheprovider", "database_test.py")
    assert "3 passed" in printed
