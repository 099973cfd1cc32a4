"""Programs of registries that tests use: installed once, and kept in the cache."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from pandastack import config


def run(*argv: str, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> None:
    """Run a step of an installation; what it prints is the failure's explanation."""
    done = subprocess.run(argv, capture_output=True, text=True, cwd=cwd, env=env)
    assert done.returncode == 0, f"{' '.join(argv)}\n{done.stdout}{done.stderr}"


def cached(name: str, install: Callable[[Path], None]) -> Path:
    """The directory ``name`` of the cache, made by ``install`` if it is not there. It is whole or not there at all.

    It counts as used now: a build that keeps the cache within its budget leaves it for an hour.
    """
    home = config.cache_dir() / "tests" / name
    with suppress(FileNotFoundError):
        os.utime(home)
    if not home.exists():
        home.parent.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(prefix=f".{name}.", dir=home.parent))
        try:
            install(unfinished)
            with suppress(OSError):  # another run was first
                unfinished.rename(home)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    return home
