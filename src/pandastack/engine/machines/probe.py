"""Which measures really confine the machines of this host, determined by starting a VMM and looking at its process.

The engine does not get everywhere what it asks for: a container may forbid namespaces, a build of QEMU may lack its
filter. So the answer comes from the process, and an operator can require measures (``PANDASTACK_REQUIRE``).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import structlog

from pandastack.engine.machines.allocation import MachineHost, group_of
from pandastack.engine.machines.plan import sockets_in
from pandastack.engine.origins.origin import Origin
from pandastack.engine.work import work_name
from pandastack.errors import PandastackError, ServerError
from pandastack.host.cgroups import Limits
from pandastack.host.files import directory_for_now
from pandastack.host.processes.confinement import Confinement as Confined
from pandastack.host.processes.confinement import confinement_of
from pandastack.host.processes.descriptors import writable_files
from pandastack.model.accelerator import Accelerator
from pandastack.model.confinement import Measure
from pandastack.vmm.plan import Confinement, MachinePlan

log = structlog.get_logger(__name__)

_MEMORY_MB = 16
_LIMITS = Limits(memory_bytes=1 << 30, cpus=1, threads=256)

_REMEDIES = {
    Measure.KVM: "use a host with VT-x or AMD-V and build the templates on it",
    Measure.USER: "start the server as root",
    Measure.NETNS: "start the server as root, in a container with CAP_SYS_ADMIN; `ip netns list` must work",
    Measure.SECCOMP: "use a QEMU that is built with seccomp",
    Measure.PRIORITY: "start the server with a nice value below 19",
    Measure.CGROUP: "start the server as root where it may make control groups (in a systemd service: Delegate=yes)",
    Measure.MEMORY: "`pandastack doctor` says what is missing",
}


async def probe(host: MachineHost) -> frozenset[Measure]:
    """The measures that confine a machine of ``host``, without the accelerator; none when no VMM starts."""
    try:
        async with (
            directory_for_now(host.layout.sockets / "probe") as directory,
            group_of(host.cgroups, "probe", _LIMITS) as cgroups,
        ):
            plan = _plan(host, directory, cgroups)
            with plan.memory.open("wb") as file:
                file.truncate(_MEMORY_MB * 1024 * 1024)
            async with host.driver.launch(plan, directory / "log") as machine:
                writes = plan.memory in writable_files(machine.pid)
                return measures(confinement_of(machine.pid), confinement_of(os.getpid()), writes_memory=writes)
    except (PandastackError, OSError) as error:
        log.warning("confinement.unknown", reason=str(error))
        return frozenset()


def _plan(host: MachineHost, directory: Path, cgroups: tuple[Path, ...]) -> MachinePlan:
    uid = host.layout.build_uid
    return MachinePlan(
        name=work_name("probe"),
        cpus=1,
        memory_mb=_MEMORY_MB,
        memory=directory / "memory",
        disks=(),
        sockets=sockets_in(directory),
        accelerator=Accelerator.TCG,
        confinement=Confinement(uid, uid, host.network.empty, cgroups) if host.confinable else None,
    )


def measures(vmm: Confined, server: Confined, *, writes_memory: bool) -> frozenset[Measure]:
    """The measures that separate the process ``vmm`` from the process ``server``."""
    found = {
        Measure.USER: vmm.uid not in (0, server.uid) and not vmm.capabilities and set(vmm.groups) <= {vmm.uid},
        Measure.NETNS: vmm.netns != server.netns,
        Measure.SECCOMP: vmm.seccomp and vmm.no_new_privileges,
        Measure.PRIORITY: vmm.nice > server.nice and vmm.oom_score > server.oom_score,
        Measure.CGROUP: all(vmm.cgroups.get(each, path) != path for each, path in server.cgroups.items()),
        Measure.MEMORY: not writes_memory,
    }
    return frozenset(measure for measure, holds in found.items() if holds)


def require(required: Iterable[Measure], applied: frozenset[Measure], templates: Sequence[Origin]) -> None:
    """Raise :class:`ServerError` that names the first required measure that machines here would be without."""
    for measure in required:
        if measure is Measure.KVM:
            _require_kvm(templates)
        elif measure not in applied:
            _refuse(measure, "machines of this host do not have it")


def _require_kvm(templates: Sequence[Origin]) -> None:
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        _refuse(Measure.KVM, "/dev/kvm is missing or not accessible")
    for origin in templates:
        if origin.snapshot.manifest.accelerator != Accelerator.KVM:
            _refuse(Measure.KVM, f"template {origin.name} was built for software emulation")


def _refuse(measure: Measure, reason: str) -> None:
    raise ServerError(f"PANDASTACK_REQUIRE asks for {measure.value}: {reason}", hint=_REMEDIES[measure])
