"""Removing what an engine that was killed left behind: machines, their disks and their sockets."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import structlog

from pandastack.host.identity import identify, kill

log = structlog.get_logger(__name__)


def machine_name(tag: str, machine: str) -> str:
    """How a machine's process is called (``-name``): this is what a sweep recognises it by."""
    return f"pandastack-{tag}-{machine}"


def sweep(tag: str, machines: Path, sockets: Path) -> int:
    """End every machine process of the engine ``tag`` and delete what it had. Returns how many processes were ended.

    Only the engine that holds the data directory's lock may call this. Processes are found by their name rather than by
    the journal alone: an engine can be killed between starting one and writing down its pid.
    """
    ended = sum(_end(pid) for pid in _machine_pids(machine_name(tag, "")))
    for each in (machines, sockets):
        for left in each.iterdir() if each.exists() else ():
            shutil.rmtree(left, ignore_errors=True)
    if ended:
        log.warning("swept machines of a former run", machines=ended)
    return ended


def _end(pid: int) -> bool:
    identity = identify(pid)
    return identity is not None and kill(identity)


def _machine_pids(prefix: str) -> Iterator[int]:
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and _name_of(process).startswith(prefix):
            yield int(process.name)


def _name_of(process: Path) -> str:
    """The value of the process's ``-name`` argument, if it has one."""
    try:
        words = (process / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return ""
    if b"-name" not in words:
        return ""
    return words[words.index(b"-name") + 1].decode("utf-8", "replace")
