"""What is said of confinement is what a VMM is really under, and what an operator requires is held to."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pandastack.disks.pool import Pool
from pandastack.engine.layout import Layout
from pandastack.engine.machines.allocation import MachineHost
from pandastack.engine.machines.host_network import HostNetwork
from pandastack.engine.machines.journal import Entry
from pandastack.engine.machines.probe import measures, probe, require
from pandastack.engine.machines.rehearsal import Rehearsals
from pandastack.engine.machines.restore import Restorer
from pandastack.engine.machines.slots import Slots
from pandastack.engine.origins.catalog import Templates
from pandastack.engine.origins.origin import Origin
from pandastack.engine.spec import SandboxSpec
from pandastack.errors import ConflictError, ServerError
from pandastack.host import facts
from pandastack.host.cgroups import open_groups
from pandastack.host.processes.confinement import Confinement, confinement_of
from pandastack.model.confinement import Measure
from pandastack.model.template import Template
from pandastack.network import namespace
from pandastack.network.namespace import empty_namespace
from pandastack.snapshots.manifest import Snapshot
from pandastack.vmm.plan import DiskRate
from pandastack.vmm.qemu import preload
from pandastack.vmm.qemu.binary import qemu_binary
from pandastack.vmm.qemu.driver import QemuDriver, cpus_on
from tests.support.manifests import MANIFEST

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(facts.program("qemu-system-x86_64") is None, reason="qemu-system-x86_64 is not installed"),
]

SERVER = Confinement(
    uid=0,
    groups=(),
    capabilities=1,
    no_new_privileges=False,
    seccomp=False,
    netns="net:[1]",
    nice=0,
    oom_score=-500,
    cgroups={"memory": "/", "cpu": "/", "pids": "/"},
)
VMM = Confinement(
    uid=9,
    groups=(),
    capabilities=0,
    no_new_privileges=True,
    seccomp=True,
    netns="net:[2]",
    nice=5,
    oom_score=900,
    cgroups={"memory": "/a", "cpu": "/a", "pids": "/a"},
)
GROUP = "pandastack-test-probe"
HERE = frozenset(Measure) - {Measure.KVM}


@pytest.mark.parametrize(
    ("change", "lost"),
    [
        ({}, set()),
        ({"uid": 0}, {Measure.USER}),
        ({"groups": (0,)}, {Measure.USER}),
        ({"capabilities": 4}, {Measure.USER}),
        ({"netns": "net:[1]"}, {Measure.NETNS}),
        ({"seccomp": False}, {Measure.SECCOMP}),
        ({"no_new_privileges": False}, {Measure.SECCOMP}),
        ({"nice": 0}, {Measure.PRIORITY}),
        ({"oom_score": -500}, {Measure.PRIORITY}),
        ({"cgroups": {"memory": "/a", "cpu": "/", "pids": "/a"}}, {Measure.CGROUP}),
        ({"cgroups": {"": "/a"}}, {Measure.CGROUP}),
    ],
)
def test_each_measure_is_what_it_says(change: dict[str, object], lost: set[Measure]) -> None:
    assert measures(replace(VMM, **change), SERVER, writes_memory=False) == HERE - lost  # type: ignore[arg-type]


def test_memory_that_it_could_write_to() -> None:
    assert measures(VMM, SERVER, writes_memory=True) == HERE - {Measure.MEMORY}


def driver(binary: Path) -> QemuDriver:
    return QemuDriver(binary, "qemu 7", cpus_on("0011"))


@pytest.fixture(autouse=True)
def no_group_is_left() -> Iterator[None]:
    yield
    if facts.is_root() and (groups := open_groups(GROUP)):
        groups.sweep(())
        groups.close()


async def _keep_nothing(entry: Entry, reason: str) -> None:
    pass


def host(directory: Path, netns: Path | None, *, confinable: bool) -> MachineHost:
    layout = Layout(directory / "data", directory / "cache")
    return MachineHost(
        layout=layout,
        directory=directory,
        slots=Slots(1),
        network=HostNetwork(netns),
        cgroups=open_groups(GROUP) if facts.is_root() else None,
        confinable=confinable,
        driver=driver(qemu_binary()),
        rehearsals=Rehearsals(),
        disk_rate=DiskRate(),
        keep=_keep_nothing,
        ended=lambda sandbox: None,
        stalled=lambda sandbox, stalled: None,
    )


async def test_a_vmm_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = host(tmp_path, await empty_namespace(), confinable=facts.is_root())
    weaker = set() if facts.is_root() else {Measure.USER, Measure.NETNS, Measure.CGROUP}
    assert await probe(place) == HERE - weaker
    assert not (place.layout.sockets / "probe").exists()
    monkeypatch.setattr(preload, "library", lambda: None)
    assert await probe(place) == HERE - weaker - {Measure.MEMORY}
    assert await probe(replace(place, driver=driver(Path("/bin/false")))) == frozenset()


async def test_a_host_where_namespaces_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not facts.is_root():
        pytest.skip("only root makes namespaces")
    failing = tmp_path / "bin" / "ip"
    failing.parent.mkdir()
    failing.write_text("#!/bin/sh\necho 'mount --make-shared /run/netns failed' >&2; exit 255\n")
    failing.chmod(0o755)
    monkeypatch.setenv("PATH", f"{failing.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(namespace, "NAME", "pandastack-test-none")
    netns = await empty_namespace()
    assert netns is None
    applied = await probe(host(tmp_path, netns, confinable=True))
    assert applied == HERE - {Measure.NETNS}
    require(HERE - {Measure.NETNS}, applied, [])
    with pytest.raises(ServerError, match="PANDASTACK_REQUIRE asks for netns") as refused:
        require(HERE, applied, [])
    assert "CAP_SYS_ADMIN" in (refused.value.hint or "")


def origin(accelerator: str) -> Origin:
    template = Template("base", "", 1, 256, 512, (), (), "", "", {}, "v1", "i1", 1, "")
    return Origin(template, Snapshot(Path("/nowhere"), replace(MANIFEST, accelerator=accelerator)), Path("/nowhere"))


def test_kvm_is_required_of_every_template(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: True)
    require([Measure.KVM], frozenset(), [origin("kvm")])
    with pytest.raises(ServerError, match="asks for kvm: template base was built for software emulation"):
        require([Measure.KVM], frozenset(), [origin("kvm"), origin("tcg")])
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(ServerError, match="/dev/kvm is missing"):
        require([Measure.KVM], frozenset(), [])


async def test_a_template_that_is_installed_later_is_held_to_it_too(tmp_path: Path) -> None:
    templates = Templates(tmp_path, Pool(tmp_path, reflink=False))
    restorer = Restorer(driver(Path("/no/qemu")), None, templates, {Measure.KVM})  # type: ignore[arg-type]
    with pytest.raises(ConflictError, match="this server requires kvm"):
        await restorer.restore(origin("tcg"), SandboxSpec("s", "s"))


def test_a_process_that_cannot_be_looked_at() -> None:
    with pytest.raises(OSError):
        confinement_of(2**22 + 1)
