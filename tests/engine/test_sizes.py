"""The size of a new sandbox."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pandastack.contract.sandboxes import DEFAULT_SIZE, WantedSize
from pandastack.engine import origins
from pandastack.engine.machines.allocation import VMM_CPUS, VMM_MB, limits_of
from pandastack.engine.origins.origin import Origin
from pandastack.engine.sandboxes.admission import Room, room_of
from pandastack.engine.sandboxes.sizes import HostSize, choose, sized
from pandastack.errors import BadRequestError
from pandastack.model.size import Size
from pandastack.snapshots import manifest as manifests
from pandastack.snapshots.manifest import Snapshot
from tests.support.manifests import MANIFEST, TEMPLATE

HOST = HostSize(cpus=8, memory_mb=16384, storage_mb=100 << 10)
TEMPLATES = replace(MANIFEST, cpus=2, memory_mb=512, disk_mb=10240)  # at most 4 CPUs, 256 to 2048 MiB
CAPTURED = replace(TEMPLATES, parent="0123")


def test_who_asks_for_nothing_gets_the_templates_size() -> None:
    origin = Origin(TEMPLATE, Snapshot(Path("/s"), TEMPLATES))
    assert sized(origin, DEFAULT_SIZE, HOST) is origin
    assert origin.size == Size(2, 512, 10240)
    assert choose(TEMPLATES, DEFAULT_SIZE, HOST) == Size(2, 512, 10240)
    assert sized(origin, WantedSize(cpu=2, memory_mb=500, disk_gb=10), HOST) is origin


@pytest.mark.parametrize(
    ("wanted", "given"),
    [
        (WantedSize(cpu=1), Size(1, 512, 10240)),
        (WantedSize(cpu=4, memory_mb=2048, disk_gb=20), Size(4, 2048, 20480)),
        (WantedSize(memory_mb=256), Size(2, 256, 10240)),
        (WantedSize(memory_mb=1000), Size(2, 1024, 10240)),
        (WantedSize(memory_mb=2047), Size(2, 2048, 10240)),
        (WantedSize(disk_gb=10), Size(2, 512, 10240)),
        (WantedSize(disk_gb=100), Size(2, 512, 102400)),
    ],
)
def test_a_size_within_the_limits_is_given(wanted: WantedSize, given: Size) -> None:
    assert choose(TEMPLATES, wanted, HOST) == given


@pytest.mark.parametrize(
    ("wanted", "field"),
    [
        (WantedSize(cpu=0), "cpu"),
        (WantedSize(cpu=5), "cpu"),
        (WantedSize(memory_mb=255), "memory_mb"),
        (WantedSize(memory_mb=2049), "memory_mb"),
        (WantedSize(disk_gb=9), "disk_gb"),
        (WantedSize(disk_gb=101), "disk_gb"),
    ],
)
def test_any_other_is_refused_with_its_field(wanted: WantedSize, field: str) -> None:
    with pytest.raises(BadRequestError, match=f"^{field}: at ") as refused:
        choose(TEMPLATES, wanted, HOST)
    assert refused.value.field == field


def test_the_host_limits_it_too() -> None:
    small = HostSize(cpus=3, memory_mb=1024, storage_mb=9000 << 10)
    for wanted, field in ((WantedSize(cpu=4), "cpu"), (WantedSize(memory_mb=1025), "memory_mb")):
        with pytest.raises(BadRequestError) as refused:
            choose(TEMPLATES, wanted, small)
        assert refused.value.field == field
    with pytest.raises(BadRequestError, match="disk_gb: at most 1024 here"):  # whatever the host has
        choose(TEMPLATES, WantedSize(disk_gb=1025), small)


def test_of_a_captured_sandbox_only_the_disk_grows() -> None:
    same = WantedSize(cpu=2, memory_mb=500, disk_gb=20)
    assert choose(CAPTURED, same, HOST) == Size(2, 512, 20480)
    for wanted, field in ((WantedSize(cpu=1), "cpu"), (WantedSize(memory_mb=1024), "memory_mb")):
        with pytest.raises(BadRequestError, match="from this snapshot") as refused:
            choose(CAPTURED, wanted, HOST)
        assert refused.value.field == field


def test_a_disk_of_part_of_a_gib_keeps_its_size_when_asked_for_the_whole_ones() -> None:
    assert choose(replace(TEMPLATES, disk_mb=1500), WantedSize(disk_gb=1), HOST).disk_mb == 1500


def test_the_size_that_applies_is_the_one_that_counts() -> None:
    origin = Origin(TEMPLATE, Snapshot(Path("/s"), TEMPLATES))
    larger = sized(origin, WantedSize(cpu=4, memory_mb=2048, disk_gb=20), HOST)
    assert room_of(origin, larger) == Room(512 + 2048, 10240 + 20480)
    limits = limits_of(larger.size)
    assert (limits.memory_bytes, limits.cpus) == ((2048 + VMM_MB) << 20, 4 + VMM_CPUS)


def test_a_machine_remembers_the_size_of_its_sandbox(tmp_path: Path) -> None:
    """A capture has it from there, and so has the next engine that adopts the machine."""
    machine = origins.resize(Origin(TEMPLATE, Snapshot(tmp_path, TEMPLATES)), Size(4, 2048, 20480))
    assert machine.size == Size(4, 2048, 20480) == manifests.load(tmp_path).manifest.size
    assert machine.snapshot.manifest.max_memory_mb == 2048
