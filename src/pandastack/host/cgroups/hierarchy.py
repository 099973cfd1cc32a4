"""Where this process's control groups are: found from ``/proc/self/cgroup`` and ``/proc/self/mountinfo`` (proc(5))."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

CONTROLLERS = ("memory", "cpu", "pids")
"""The controllers that limits need."""


@dataclass(frozen=True)
class Hierarchy:
    """The directory of this process's own group for each controller. With version 2 it is one for all."""

    version: int
    own: Mapping[str, Path]


def find_hierarchy(mountinfo: str, membership: str) -> Hierarchy | None:
    """The hierarchy that has all of :data:`CONTROLLERS`; ``None``: this host mounts none.

    ``mountinfo`` and ``membership`` are the texts of ``/proc/self/mountinfo`` and ``/proc/self/cgroup``.
    """
    mounts, paths = list(_mounts(mountinfo)), _memberships(membership)
    own = {}
    for controller in CONTROLLERS:
        for point, root, kind, options in mounts:
            if kind == "cgroup" and controller in options and controller in paths:
                own[controller] = _below(point, root, paths[controller])
    if set(own) == set(CONTROLLERS):
        return Hierarchy(1, own)
    for point, root, kind, _ in mounts:
        if kind == "cgroup2" and "" in paths:
            return Hierarchy(2, dict.fromkeys(CONTROLLERS, _below(point, root, paths[""])))
    return None


def limiting_groups(membership: str) -> dict[str, str]:
    """Controller → path, from the text of ``/proc/PID/cgroup``, for :data:`CONTROLLERS`; version 2: ``""``."""
    paths = _memberships(membership)
    return {each: paths[each] for each in CONTROLLERS if each in paths} or {"": paths.get("", "/")}


def _mounts(mountinfo: str) -> list[tuple[str, str, str, list[str]]]:
    """Mount point, root of the mount within its file system, type, and options of the file system."""
    found = []
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        fields, kind = before.split(), after.split()
        if len(fields) > 4 and len(kind) > 2:
            found.append((fields[4], fields[3], kind[0], kind[2].split(",")))
    return found


def _memberships(text: str) -> dict[str, str]:
    """Controller → path of this process's group; the empty name is version 2's."""
    found = {}
    for line in text.splitlines():
        _, controllers, path = line.split(":", 2)
        found.update(dict.fromkeys(controllers.split(","), path))
    return found


def _below(point: str, root: str, path: str) -> Path:
    """The directory of a group. In a container the mount may show only a part of the hierarchy."""
    inside = path.removeprefix(root) if root != "/" else path
    return Path(point) / inside.lstrip("/")
