"""How a process is confined, as proc(5) shows it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pandastack.host.cgroups import limiting_groups
from pandastack.host.processes.priority import oom_score


@dataclass(frozen=True)
class Confinement:
    """``nice`` as for setpriority(2), ``oom_score`` as for ``oom_score_adj``; ``netns`` names the network namespace."""

    uid: int
    groups: tuple[int, ...]
    capabilities: int
    no_new_privileges: bool
    seccomp: bool
    netns: str
    nice: int
    oom_score: int
    cgroups: Mapping[str, str]
    """The path of its control group for each controller that limits it."""


def confinement_of(pid: int) -> Confinement:
    """Raises ``OSError`` when the process is gone, or when this user may not inspect it."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    fields = {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return Confinement(
        uid=int(fields["Uid"].split()[1]),
        groups=tuple(map(int, fields["Groups"].split())),
        capabilities=int(fields["CapEff"], 16),
        no_new_privileges=fields["NoNewPrivs"] == "1",
        seccomp=fields["Seccomp"] == "2",
        netns=str(Path(f"/proc/{pid}/ns/net").readlink()),
        nice=os.getpriority(os.PRIO_PROCESS, pid),
        oom_score=oom_score(pid),
        cgroups=limiting_groups(Path(f"/proc/{pid}/cgroup").read_text()),
    )
