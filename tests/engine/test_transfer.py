"""Templates as files: written here and read there, and every byte of an archive is somebody else's."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import tarfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from pandastack.disks.overlay import make_overlay
from pandastack.disks.pool import Pool
from pandastack.engine.origins.catalog import Templates
from pandastack.engine.origins.transfer import ImportOptions, export_template, import_template
from pandastack.errors import BadRequestError, ConflictError, NotFoundError, PandastackError, StorageFullError
from pandastack.host import facts, files
from pandastack.images.cache import file_sha256
from pandastack.model.accelerator import Accelerator
from pandastack.model.baked_services import BakedService, Readiness
from pandastack.snapshots.archive.index import FILES
from pandastack.vmm.qemu.driver import QemuDriver
from tests.support import manifests
from tests.support.manifests import TEMPLATE

MIB = 1024 * 1024
KEY = "ab" * 32
SMALL = {"memory_mb": 128, "min_memory_mb": 128, "max_memory_mb": 128, "disk_mb": 64}
MANIFEST = replace(manifests.MANIFEST, **SMALL)
DRIVER = QemuDriver(Path("/nowhere"), MANIFEST.vmm, {Accelerator.TCG: MANIFEST.cpu_flags})
SERVICE = BakedService("web", "serve", env={"A": "1"}, ready=Readiness(port=80))


def silent(_done: int, _total: int) -> None:
    pass


@dataclass(frozen=True)
class Place:
    """An installation, as far as templates are concerned."""

    root: Path
    pool: Pool
    templates: Templates

    def load(self, archive: Path, *, driver: QemuDriver = DRIVER, **options: Any) -> Any:
        work = self.root / "work"
        work.mkdir()
        try:
            return import_template(self.templates, self.pool, driver, archive, work, ImportOptions(**options), silent)
        finally:
            for each in work.iterdir():
                each.unlink()
            work.rmdir()

    def everything(self) -> list[str]:
        return sorted(str(each.relative_to(self.root)) for each in self.root.rglob("*") if each.is_file())


def open_place(root: Path) -> Place:
    pool = Pool(root / "pool", reflink=False)
    for each in (pool.snapshots, pool.modules, pool.machines):
        each.mkdir(parents=True)
    return Place(root, pool, Templates(root / "templates", pool))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """An installation with a template, most of whose memory is a hole."""
    root = tmp_path_factory.mktemp("source")
    place, baked = open_place(root / "place"), root / "baked"
    baked.mkdir()
    for name in ("devices", "kernel", "initramfs", "modules.img"):
        (baked / name).write_bytes(f"{name} of a test".encode() * 1000)
    for name, size in (("memory", MANIFEST.max_memory_mb), ("base.img", MANIFEST.disk_mb)):
        with (baked / name).open("wb") as file:
            file.truncate(size * MIB)
            for start in (0, 4 * MIB, 4 * MIB + 200_000, size * MIB - 4096):
                os.pwrite(file.fileno(), os.urandom(4096), start)
    make_overlay(baked / "root.qcow2", MANIFEST.disk_mb * MIB)
    manifest = replace(MANIFEST, key=KEY, modules=file_sha256(baked / "modules.img"))
    (baked / "manifest.json").write_bytes(manifest.to_json())
    template = replace(TEMPLATE, version=KEY, services=(SERVICE,), warm_up=("true",), network={"egress": "deny"})
    place.templates.install(template, baked)
    return place


@pytest.fixture(scope="module")
def archive(source: Place, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("archives") / "base.tar.zst"
    export_template(source.templates, "base", target, silent)
    return target


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return open_place(tmp_path / "place")


def test_a_template_goes_to_another_host_as_it_is(source: Place, archive: Path, place: Place) -> None:
    origin = place.load(archive)
    former = source.templates.get("base")
    version = origin.template.version
    assert origin.template == replace(former.template, version=version, baked_as=KEY)
    assert version != KEY
    for name in FILES:
        mine, theirs = origin.snapshot.directory / name, former.snapshot.directory / name
        assert mine.stat().st_size == theirs.stat().st_size
        assert file_sha256(mine) == file_sha256(theirs)
    assert files.allocated_bytes(origin.snapshot.memory) < 4 * MIB
    assert archive.stat().st_size < 2 * MIB
    origin.snapshot.check_memory()
    same = {"key", "memory_stamp", "disk_stamps"}
    mine, theirs = vars(origin.snapshot.manifest), vars(former.snapshot.manifest)
    assert {key for key in mine if mine[key] != theirs[key]} <= same


def test_two_exports_are_the_same_and_one_more_import_makes_no_further_copy(
    source: Place, archive: Path, place: Place, tmp_path: Path
) -> None:
    again = tmp_path / "again"
    export_template(source.templates, "base", again, silent)
    assert again.read_bytes() == archive.read_bytes()
    first, other = place.load(archive), place.load(again, name="other")
    assert first.template.version == other.template.version
    assert other.template.aliases == ()
    assert len(list(place.pool.snapshots.iterdir())) == 1


def test_a_name_that_is_taken_is_not_replaced_without_being_told(archive: Path, place: Place) -> None:
    place.load(archive, name="mine")
    before = place.everything()
    for name in ("mine", "ubuntu-24.04"):
        place.load(archive) if name == "ubuntu-24.04" else None
        with pytest.raises(ConflictError, match="exists already"):
            place.load(archive, name=name)
    place.load(archive, name="mine", replace=True)
    assert set(before) < set(place.everything())


@pytest.mark.parametrize("name", ["../up", "a/b", "..", "a b", "x" * 65])
def test_a_name_that_is_none(archive: Path, place: Place, name: str) -> None:
    with pytest.raises(BadRequestError) as wrong:
        place.load(archive, name=name)
    assert wrong.value.field == "name"


def test_an_unknown_template_is_not_exported(source: Place, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="unknown template 'nope'"):
        export_template(source.templates, "nope", tmp_path / "file", silent)
    with pytest.raises(PandastackError, match="No such file"):
        export_template(source.templates, "base", tmp_path / "no" / "file", silent)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("driver", "difference"),
    [
        (replace(DRIVER, identity="qemu 9"), "was made with vmm qemu 7.2.22 (Debian), this host has qemu 9"),
        (replace(DRIVER, cpus={Accelerator.TCG: "max:ff"}), "was made with cpu_flags max:0011, this host has max:ff"),
    ],
    ids=["vmm", "cpu"],
)
def test_a_template_for_another_host_is_refused_with_the_difference(
    archive: Path, place: Place, driver: QemuDriver, difference: str
) -> None:
    with pytest.raises(ConflictError) as refused:
        place.load(archive, driver=driver)
    assert difference in refused.value.message
    assert place.everything() == []


def test_the_features_that_differ_are_named(archive: Path, place: Place, tmp_path: Path) -> None:
    def other_cpu(index: dict[str, Any]) -> None:
        index["cpu_model"] = "Pentium"
        index["cpu_features"] = ["warp", *index["cpu_features"]]
        index["manifest"]["cpu_flags"] = "max:other"

    with pytest.raises(ConflictError) as refused:
        place.load(rewritten(archive, tmp_path / "other", other_cpu))
    assert "was made with cpu_flags max:other, this host has max:0011" in refused.value.message
    model, _ = facts.cpu_features()
    assert f"it was made on Pentium, this host has {model}; this host's CPU lacks: warp" in str(refused.value.hint)


def test_a_flipped_bit_is_refused(archive: Path, place: Place, tmp_path: Path) -> None:
    whole = archive.read_bytes()
    for place_of in range(0, len(whole), len(whole) // 23):
        flipped = tmp_path / "flipped"
        flipped.write_bytes(whole[:place_of] + bytes([whole[place_of] ^ 4]) + whole[place_of + 1 :])
        with pytest.raises(BadRequestError, match="not a usable template archive"):
            place.load(flipped)
        assert place.everything() == []


def test_a_flipped_bit_before_the_compression_is_refused(archive: Path, place: Place, tmp_path: Path) -> None:
    for name in (*FILES, "index.json", "index.sha256"):

        def flip(members: dict[str, bytes], name: str = name) -> None:
            members[name] = members[name][:7] + bytes([members[name][7] ^ 1]) + members[name][8:]

        with pytest.raises(BadRequestError, match="not a usable template archive") as refused:
            place.load(packed(tmp_path / "flipped", members_of(archive), flip))
        assert name in refused.value.message or "index" in name
        assert place.everything() == []


def test_an_archive_that_was_cut_or_is_none(archive: Path, place: Place, tmp_path: Path) -> None:
    whole, file = archive.read_bytes(), tmp_path / "file"
    for data in (b"", b"nothing of the kind", whole[: len(whole) // 2], whole[:-1], whole + b"more"):
        file.write_bytes(data)
        with pytest.raises(BadRequestError, match="not a usable template archive"):
            place.load(file)
    with pytest.raises(BadRequestError, match="No such file"):
        place.load(tmp_path / "missing")
    with pytest.raises(BadRequestError):
        place.load(tmp_path)
    assert place.everything() == []


Index = dict[str, Any]


@pytest.mark.parametrize(
    "change",
    [
        lambda index: index.update(format=2),
        lambda index: index.update(more=1),
        lambda index: index["template"].update(version=1),
        lambda index: index["template"].update(name="../../etc/cron.d/x"),
        lambda index: index["template"].update(network={"egress": "sometimes"}),
        lambda index: index["template"].update(wake="never"),
        lambda index: index["template"].update(services=[{"name": "a"}]),
        lambda index: index["manifest"].update(disks=["root", "../x"]),
        lambda index: index["manifest"].update(disks=["root", "data"]),
        lambda index: index["manifest"].update(accelerator="xen"),
        lambda index: index["manifest"].update(cpus=0),
        lambda index: index["manifest"].update(max_cpus=65),
        lambda index: index["manifest"].update(max_memory_mb=256),
        lambda index: index["manifest"].update(disk_mb=1),
        lambda index: index["manifest"].update(volumes=15),
        lambda index: index["manifest"].update(boot_id_at=1 << 40),
        lambda index: index["manifest"].update(modules="../../../etc/passwd"),
        lambda index: index["manifest"].update(memory_lost="x"),
        lambda index: index["files"].pop(),
        lambda index: index["files"].append(index["files"][0]),
        lambda index: index["files"][0].update(name="../memory"),
        lambda index: index["files"][0].update(name="/etc/passwd"),
        lambda index: index["files"][0].update(size=1),
        lambda index: index["files"][0].update(size=0),
        lambda index: index["files"][0].update(size=-1),
        lambda index: index["files"][1].update(size=1 << 41),
        lambda index: index["files"][0].update(sha256="../x"),
        lambda index: index["files"][0].update(ranges=[0]),
        lambda index: index["files"][0].update(ranges=[8, 4]),
        lambda index: index["files"][0].update(ranges=[0, 8, 4, 12]),
        lambda index: index["files"][0].update(ranges=[-4, 4]),
        lambda index: index["files"][0].update(ranges=[0, 1 << 40]),
    ],
)
def test_an_index_that_lies_is_refused(
    archive: Path, place: Place, tmp_path: Path, change: Callable[[Index], object]
) -> None:
    with pytest.raises(BadRequestError):
        place.load(rewritten(archive, tmp_path / "file", change))
    assert place.everything() == []


def test_more_bytes_than_the_pool_has_room_for_are_not_written(archive: Path, place: Place, tmp_path: Path) -> None:
    def endless(index: Index) -> None:
        index["manifest"].update(disk_mb=1024 * 1024)
        index["files"][2].update(size=1 << 40, ranges=[0, 1 << 40])

    with pytest.raises(StorageFullError):
        place.load(rewritten(archive, tmp_path / "file", endless))
    assert place.everything() == []


def header(name: str, size: int, kind: bytes = tarfile.REGTYPE, link: str = "") -> bytes:
    member = tarfile.TarInfo(name)
    member.size, member.type, member.linkname = size, kind, link
    return member.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize(
    "first",
    [
        header("index.json", 1 << 40),
        header("index.json", 17 * MIB),
        header("../index.json", 10),
        header("index.json", 0, tarfile.SYMTYPE, "/etc/passwd"),
        header("index.json", 0, tarfile.LNKTYPE, "/etc/passwd"),
        header("index.json", 0, tarfile.CHRTYPE),
        header("././@PaxHeader", 1 << 40, tarfile.XHDTYPE),
        header("././@LongLink", 1 << 40, tarfile.GNUTYPE_LONGNAME),
        header("index.json", 10, tarfile.GNUTYPE_SPARSE),
        bytes(512),
        b"\xff" * 512,
    ],
    ids=["bomb", "large", "dots", "symlink", "link", "device", "pax", "longname", "sparse", "zeros", "ones"],
)
def test_members_of_other_kinds_are_refused(place: Place, tmp_path: Path, first: bytes) -> None:
    with pytest.raises(BadRequestError, match="not a usable template archive"):
        place.load(compressed(tmp_path / "file", [first, bytes(MIB)]))


def members_of(archive: Path) -> dict[str, bytes]:
    done = subprocess.run(["zstd", "-dc", str(archive)], capture_output=True, check=True)
    (archive.parent / "plain").write_bytes(done.stdout)
    with tarfile.open(archive.parent / "plain") as tar:  # any tar reads it
        return {each.name: tar.extractfile(each).read() for each in tar}  # type: ignore[union-attr]


def packed(target: Path, members: dict[str, bytes], change: Callable[[dict[str, bytes]], object]) -> Path:
    change(members)

    def blocks() -> Iterator[bytes]:
        for name, data in members.items():
            yield header(name, len(data)) + data + bytes(-len(data) % 512)
        yield bytes(1024)

    return compressed(target, blocks())


def compressed(target: Path, pieces: Iterable[bytes]) -> Path:
    subprocess.run(["zstd", "-q", "-f", "-o", str(target)], input=b"".join(pieces), check=True)
    return target


def rewritten(archive: Path, target: Path, change: Callable[[Index], object]) -> Path:
    """The archive with another index, whose checksum is right."""

    def with_index(members: dict[str, bytes]) -> None:
        index = json.loads(members["index.json"])
        change(index)
        members["index.json"] = json.dumps(index).encode()
        members["index.sha256"] = hashlib.sha256(members["index.json"]).hexdigest().encode()

    return packed(target, members_of(archive), with_index)
