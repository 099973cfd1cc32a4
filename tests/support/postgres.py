"""A PostgreSQL server of our own, on a Unix socket in a directory of the test."""

from __future__ import annotations

import importlib.util
import os
import pwd
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import which


def programs() -> Path | None:
    """The directory of the server's programs; Debian keeps them out of PATH, one directory for each version."""
    found = which("initdb")
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return Path(found).resolve().parent if found else versions[-1].parent if versions else None


def missing() -> str | None:
    """What this machine lacks to run one."""
    if programs() is None:
        return "this machine has no PostgreSQL server"
    return None if importlib.util.find_spec("asyncpg") else "asyncpg is not installed"


@contextmanager
def serving(port: int | None = None) -> Iterator[Path]:
    """The directory of its socket. The user is ``pandastack``, any number of databases can be made in it.

    With ``port``, it also listens there, and wants passwords from those who connect to it.
    """
    tools = programs()
    assert tools is not None
    user = _user()
    with tempfile.TemporaryDirectory(prefix="pg-") as name:
        directory = Path(name)
        if user is not None:
            os.chown(directory, pwd.getpwnam(user).pw_uid, -1)

        def run(program: str, *argv: str) -> None:
            subprocess.run([tools / program, *argv], check=True, user=user, cwd=directory, stdout=subprocess.DEVNULL)

        data = str(directory / "data")
        run("initdb", "-D", data, "-A", "trust", "-U", "pandastack", "--no-sync")
        options = f"-k {directory} -c fsync=off"
        options += " -c listen_addresses=" if port is None else f" -c listen_addresses=127.0.0.1 -c port={port}"
        if port is not None:
            rules = "local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n"
            (directory / "data/pg_hba.conf").write_text(rules)
        run("pg_ctl", "-D", data, "-l", str(directory / "log"), "-o", options, "-w", "start")
        try:
            yield directory
        finally:
            run("pg_ctl", "-D", data, "-m", "immediate", "-w", "stop")


def make_database(directory: Path, name: str) -> str:
    """The URL of a new, empty database."""
    tools = programs()
    assert tools is not None
    subprocess.run([tools / "createdb", "-h", directory, "-U", "pandastack", name], check=True)
    return f"postgresql://pandastack@/{name}?host={directory}"


def _user() -> str | None:
    """PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return None
    return next(name for name in ("postgres", "nobody") if any(each.pw_name == name for each in pwd.getpwall()))
