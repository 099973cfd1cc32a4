from __future__ import annotations

import json
from dataclasses import MISSING, fields, replace
from pathlib import Path

import pytest

from pandastack.errors import ConflictError, ServerError
from pandastack.snapshots.manifest import FORMAT, Manifest, Snapshot, load, stamp
from tests.support.manifests import HERE, MANIFEST


def test_it_survives_its_json(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_bytes(MANIFEST.to_json())
    snapshot = load(tmp_path)
    assert snapshot == Snapshot(tmp_path, MANIFEST)
    parts = (snapshot.memory, snapshot.devices, snapshot.root)
    assert [path.relative_to(tmp_path).name for path in parts] == ["memory", "devices", "root.qcow2"]


def test_the_names_on_disk_are_those_of_older_snapshots() -> None:
    written = json.loads(MANIFEST.to_json())
    assert written["quiet"] is True
    assert not Manifest.from_json(json.dumps(written | {"quiet": False}).encode()).at_frame_boundary


def test_disks_have_names_and_a_snapshot_of_before_has_one() -> None:
    written = json.loads(MANIFEST.to_json())
    assert written.pop("disks") == ["root"]
    assert Manifest.from_json(json.dumps(written).encode()) == MANIFEST
    two = Snapshot(Path("/s"), Manifest.from_json(json.dumps(written | {"disks": ["root", "data"]}).encode()))
    assert [(disk.name, str(disk.path)) for disk in two.disks] == [
        ("root", "/s/root.qcow2"),
        ("data", "/s/disk-data.img"),
    ]
    assert two.root == Path("/s/root.qcow2")


@pytest.mark.parametrize("disks", [[], ["data"], ["root", "root"], ["root", "../x"], ["root", ""], "root", [1], None])
def test_disks_that_no_snapshot_has(disks: object) -> None:
    written = json.loads(MANIFEST.to_json()) | {"disks": disks}
    with pytest.raises(ServerError, match="manifest"):
        Manifest.from_json(json.dumps(written).encode())


@pytest.mark.parametrize("name", ["modules", "base"])
def test_no_writable_disk_has_the_name_of_another(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} is the name of another disk"):
        replace(MANIFEST, disks=("root", name))


def test_a_later_versions_field_is_no_error() -> None:
    assert Manifest.from_json(json.dumps(json.loads(MANIFEST.to_json()) | {"later": 1}).encode()) == MANIFEST


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b"\xff", MANIFEST.to_json()[:50]])
def test_one_that_cannot_be_read(data: bytes) -> None:
    with pytest.raises(ServerError, match="manifest"):
        Manifest.from_json(data)


OPTIONAL = {each.name for each in fields(Manifest) if each.default is not MISSING}


def test_every_field_without_a_default_is_needed() -> None:
    whole = json.loads(MANIFEST.to_json())
    for name in whole.keys() - OPTIONAL:
        with pytest.raises(ServerError, match=name):
            Manifest.from_json(json.dumps({key: value for key, value in whole.items() if key != name}).encode())


def test_a_snapshot_of_a_former_format_is_read_and_refused_with_the_reason() -> None:
    former = {key: value for key, value in json.loads(MANIFEST.to_json()).items() if key not in OPTIONAL}
    found = Manifest.from_json(json.dumps(former | {"format": 2}).encode())
    assert (found.max_cpus, found.max_memory_mb) == (found.cpus, found.memory_mb)
    with pytest.raises(ConflictError, match=f"made with format 2, this host has {FORMAT}"):
        Snapshot(Path("/s"), found).check(HERE)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"vmm": "qemu 9.0"}, "was made with vmm qemu 9.0, this host has qemu 7.2.22"),
        ({"cpu_flags": "max:ffff"}, "was made with cpu_flags max:ffff, this host has max:0011"),
        ({"format": FORMAT + 1}, f"was made with format {FORMAT + 1}, this host has {FORMAT}"),
        ({"protocol": 99}, "has an agent that speaks version 99 of the channel's protocol"),
    ],
)
def test_it_is_restored_only_where_it_fits(change: dict[str, object], said: str) -> None:
    Snapshot(Path("/s"), MANIFEST).check(HERE)
    with pytest.raises(ConflictError) as refused:
        Snapshot(Path("/s"), replace(MANIFEST, **change)).check(HERE)  # type: ignore[arg-type]
    assert str(refused.value).startswith(f"snapshot {MANIFEST.key[:12]} {said}")
    assert "template build" in (refused.value.hint or "")


def test_a_capture_cannot_be_built_again() -> None:
    captured = Snapshot(Path("/nowhere"), replace(MANIFEST, parent="0011"))
    with pytest.raises(ConflictError) as refused:
        captured.check(replace(HERE, vmm="another"))
    assert "template build" not in (refused.value.hint or "")
    assert "delete it" in (refused.value.hint or "")


def test_a_capture_whose_memory_was_changed_cannot_be_built_again(tmp_path: Path) -> None:
    (tmp_path / "memory").write_bytes(b"now")
    Snapshot(tmp_path, MANIFEST).check_memory()  # made before stamps were recorded
    Snapshot(tmp_path, replace(MANIFEST, memory_stamp=stamp(tmp_path / "memory"))).check_memory()
    changed = Snapshot(tmp_path, replace(MANIFEST, parent="0011", memory_stamp="3:0"))
    with pytest.raises(ConflictError, match="was changed after it was made") as refused:
        changed.check_memory()
    assert refused.value.hint == "delete it"
