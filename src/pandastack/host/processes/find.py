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


def user_of(pid: int) -> int | None:
    """The effective user of a process, or None when it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return None
    return next(int(line.split()[2]) for line in lines if line.startswith("Uid:"))


def _name_of(process: Path) -> str:
    try:
        words = (process / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return ""
    if b"-name" not in words[:-1]:
        return ""
    return words[words.index(b"-name") + 1].decode("utf-8", "replace")
