"""Makes control groups, and puts processes into them."""

from __future__ import annotations

import os
import time
from collections.abc import Container, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pandastack.host.cgroups.hierarchy import CONTROLLERS, Hierarchy, find_hierarchy
from pandastack.host.cgroups.limits import OPTIONAL, Limits, plan_settings

REMOVAL_SECONDS = 2.0
"""How long the kernel may need to notice that the last process of a group has ended."""

_SERVER = "server"
"""The group that a server moves itself into under version 2, where a group has either processes or children."""


@dataclass(frozen=True)
class Groups:
    """A group for all machines of one engine, and below it one for each. Made by :func:`open_groups`.

    Its methods block for milliseconds: call them in a thread.
    """

    version: int
    parents: tuple[tuple[str, Path], ...]
    """The common group's directory for each controller."""

    def make(self, name: str, limits: Limits) -> tuple[Path, ...]:
        """Make a group with these limits, or give them to the one that exists. Returns its directories, for
        :func:`place`. Raises :class:`OSError`.
        """
        made = {controller: parent / name for controller, parent in self.parents}
        for each in set(made.values()):
            each.mkdir(exist_ok=True)
        for controller, file, text in plan_settings(self.version, limits):
            _write(made[controller] / file, text)
        return tuple(dict.fromkeys(made.values()))

    def remove(self, name: str) -> None:
        """Remove a group once its processes have ended. One that does not exist is fine."""
        _remove({parent / name for _, parent in self.parents})

    def close(self) -> None:
        """Remove the common group, if none is left in it."""
        for _, parent in self.parents:
            with suppress(OSError):
                parent.rmdir()

    def sweep(self, keep: Container[str]) -> None:
        """Remove the groups that are not in ``keep``."""
        for _, parent in self.parents:
            _remove(each for each in parent.iterdir() if each.is_dir() and each.name not in keep)


def open_groups(name: str) -> Groups | None:
    """Groups called ``name`` below this process's own group; ``None`` where it may not make any.

    Under version 2 the server must be alone in its group, as a service with ``Delegate=yes`` is.
    """
    hierarchy = find_hierarchy(Path("/proc/self/mountinfo").read_text(), Path("/proc/self/cgroup").read_text())
    if hierarchy is None:
        return None
    try:
        parents = _delegated(hierarchy, name) if hierarchy.version == 2 else _legacy(hierarchy, name)
    except OSError:
        return None
    return Groups(hierarchy.version, parents)


def place(pid: int, directories: Sequence[Path]) -> None:
    """Move a process with all its threads into the groups. Raises :class:`OSError`, also when it is not in them then.

    Blocks for milliseconds: call it in a thread.
    """
    for each in directories:
        (each / "cgroup.procs").write_text(str(pid))
    for each in directories:
        if str(pid) not in (each / "cgroup.procs").read_text().split():
            raise OSError(f"process {pid} is not in the control group {each}")


def _legacy(hierarchy: Hierarchy, name: str) -> tuple[tuple[str, Path], ...]:
    parents = tuple((controller, own / name) for controller, own in hierarchy.own.items())
    for controller, parent in parents:
        parent.mkdir(exist_ok=True)
        if controller == "cpu":  # beside the server's own threads, as much as one for each CPU
            _write(parent / "cpu.shares", str(1024 * (os.cpu_count() or 1)))
        if controller == "memory":
            _write(parent / "memory.use_hierarchy", "1")
    return parents


def _delegated(hierarchy: Hierarchy, name: str) -> tuple[tuple[str, Path], ...]:
    own = hierarchy.own["memory"]
    if own.name == _SERVER:  # a former server has moved this process's parent there
        own = own.parent
    members = (own / "cgroup.procs").read_text().split()
    if str(os.getpid()) in members and (own / "cgroup.type").exists():  # the root group may have both
        if members != [str(os.getpid())]:
            raise OSError("other processes share the server's control group")
        (own / _SERVER).mkdir(exist_ok=True)
        (own / _SERVER / "cgroup.procs").write_text(members[0])
    enable = " ".join(f"+{each}" for each in CONTROLLERS)
    _write(own / "cgroup.subtree_control", enable)
    parent = own / name
    parent.mkdir(exist_ok=True)
    _write(parent / "cgroup.subtree_control", enable)
    return tuple((controller, parent) for controller in CONTROLLERS)


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text)
    except FileNotFoundError:
        if path.name not in OPTIONAL:
            raise
    except OSError:
        if path.name != "memory.use_hierarchy":  # it is on already, and has children
            raise


def _remove(directories: Iterable[Path]) -> None:
    """Remove groups whose processes have ended or are ending; the next sweep gets what is left."""
    until = time.monotonic() + REMOVAL_SECONDS
    for each in directories:
        while each.exists():
            try:
                each.rmdir()
            except OSError:
                if time.monotonic() > until:
                    return
                time.sleep(0.005)
