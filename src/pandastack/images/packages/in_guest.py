"""Declared packages as instructions of a build machine: for recipes that the host must not carry out itself, and for
bases whose root only a machine can see."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from pandastack.images.instructions import Run, Step, User
from pandastack.images.packages.declared import Packages
from pandastack.images.packages.lock import Lock

_DEBIAN = """set -eu
apt-get update
DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends {entries}
apt-get clean
rm -rf /var/lib/apt/lists/*"""

_PYTHON = """set -eu
if ! python3 -m pip --version >/dev/null 2>&1; then
  PYTHONPATH=$(echo /usr/share/python-wheels/pip-*.whl)
  export PYTHONPATH
fi
python3 -m pip install --break-system-packages --no-cache-dir --only-binary=:all: {options} -r /dev/stdin <<'END'
{entries}
END"""
"""Debian's python3-venv brings pip as a wheel, and a wheel runs as it is."""

_NPM = "npm install --global --ignore-scripts --no-audit --no-fund {entries}"


def instructions(packages: Packages, lock: Lock | None, user: str) -> tuple[Step, ...]:
    """RUN instructions that install ``packages`` as root; ``user`` is who runs what follows."""
    runs = tuple(_runs(packages, lock))
    if not runs or user == "root":
        return runs
    return (User(0, "USER root", "root"), *runs, User(0, f"USER {user}", user))


def _runs(packages: Packages, lock: Lock | None) -> Iterator[Step]:
    if packages.debian:
        yield _run("debian", _DEBIAN.format(entries=shlex.join(packages.debian)))
    if packages.python:
        options, entries = "", list(packages.python)
        if lock:
            options = "--no-deps --require-hashes"
            entries = [f"{wheel.name}=={wheel.version} --hash=sha256:{wheel.sha256}" for wheel in lock.python]
        yield _run("python", _PYTHON.format(options=options, entries="\n".join(entries)))
    if packages.npm:
        yield _run("npm", _NPM.format(entries=shlex.join(packages.npm)))


def _run(kind: str, script: str) -> Step:
    return Run(0, f"install the {kind} packages of template.toml", script)
