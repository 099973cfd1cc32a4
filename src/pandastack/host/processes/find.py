"""Finding processes by their ``-name`` argument."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pandastack.host.processes.identity import ProcessIdentity, identify


def named_processes(prefix: str) -> Iterator[tuple[ProcessIdentity, str]]:
    """Every living process with a ``-name`` argument that begins with ``prefix``, and the argument's value."""
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        name = _name_of(process)
        if name.startswith(prefix) and (identity := identify(int(process.name))):
            yield identity, name


def _name_of(process: Path) -> str:
    try:
        words = (process / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return ""
    if b"-name" not in words[:-1]:
        return ""
    return words[words.index(b"-name") + 1].decode("utf-8", "replace")
