"""Removing what an engine that was killed left behind: machines, their disks and their sockets."""

from __future__ import annotations

import re
import shutil
from collections.abc import Container, Iterable
from pathlib import Path

import structlog

from pandastack.engine.layout import runtime_directory
from pandastack.engine.machines.names import machine_name
from pandastack.host.leases import remove_unused
from pandastack.host.processes.find import named_processes
from pandastack.host.processes.identity import kill

_LEFT = re.compile(r"users-\d+\.lock|[0-9a-f]{8}(-build|-trial)?")
"""What engines make in the runtime directory."""

log = structlog.get_logger(__name__)


def sweep_runtime_directory() -> None:
    """Remove the lock files and the empty socket directories of engines that were killed, whichever they were, and the
    sockets of their builds."""
    for path in runtime_directory().iterdir():
        if _LEFT.fullmatch(path.name):
            remove_unused(path, contents=path.name.endswith(("-build", "-trial")))


def end_machines(tag: str, keep: Container[str]) -> None:
    """End every machine process of the engine ``tag``, except for the machines named in ``keep``.

    Only the engine that holds the data directory's lock may call this. Processes are found by their name rather than by
    the journal alone: an engine can be killed between starting one and recording its pid.
    """
    prefix = machine_name(tag, "")
    found = named_processes(prefix)
    ended = sum(kill(process) for process, name in found if name.removeprefix(prefix) not in keep)
    if ended:
        log.warning("machines.swept", machines=ended)


def remove_files(directories: Iterable[Path], keep: Container[str]) -> None:
    """Remove what is left of machines in ``directories``, except for the machines named in ``keep``."""
    for each in directories:
        for left in each.iterdir() if each.exists() else ():
            if left.name not in keep:
                shutil.rmtree(left, ignore_errors=True)
