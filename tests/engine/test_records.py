"""What the engine writes down and reads back: journal, templates, the accelerator's answer, events, progress."""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest

from pandastack.contract.events import MachineDied
from pandastack.disks.overlay import make_overlay
from pandastack.disks.pool import Pool
from pandastack.engine.build import accelerator
from pandastack.engine.build.accelerator import Choice, Trial, choose
from pandastack.engine.build.progress import Steps, megabytes
from pandastack.engine.machines.journal import FILE, Entry, Journal, read
from pandastack.engine.machines.state import MachineState
from pandastack.engine.machines.stopwatch import Stopwatch
from pandastack.engine.origins import catalog, link_base
from pandastack.engine.origins.catalog import Templates
from pandastack.engine.recovery.adoption import should_adopt
from pandastack.engine.sandboxes import events
from pandastack.engine.sandboxes.events import Events
from pandastack.engine.spec import Attachment
from pandastack.errors import ConflictError, NotFoundError
from pandastack.host.processes.identity import identify
from pandastack.model.accelerator import Accelerator
from pandastack.model.network import OPEN
from pandastack.model.network_rules import to_json
from pandastack.model.template import Template
from pandastack.vmm.plan import Boot
from pandastack.vmm.qemu.driver import QemuDriver, cpus_on
from tests.support.installation import eventually
from tests.support.manifests import HERE, MANIFEST, TEMPLATE


def test_a_templates_record_is_read_again_also_one_of_an_older_release() -> None:
    template = replace(TEMPLATE, rehearse=("ls", "true"))
    record = template.to_json()
    assert Template.from_json(json.dumps(record)) == template
    for later in ("rehearse", "owner", "config"):
        del record[later]
    assert Template.from_json(json.dumps(record)) == TEMPLATE


def test_the_journal_is_on_disk_before_anything_happens(tmp_path: Path) -> None:
    journal = Journal(tmp_path, Entry("beef", 3, "base", "0123", MachineState.PLANNED))
    written = json.loads((tmp_path / FILE).read_text())
    assert written == {
        "machine": "beef",
        "slot": 3,
        "template": "base",
        "snapshot": "0123",
        "state": "planned",
        "sandbox": "",
        "hostname": "",
        "env": {},
        "process": None,
        "network_slot": "",
        "paused": False,
        "network": to_json(OPEN),
        "volumes": [],
    }
    journal.advance(MachineState.BLANK, process=identify(os.getpid()))
    journal.advance(MachineState.CLAIMED, sandbox="sandbox-id", volumes=(Attachment("v", "/mnt/v", 0, read_only=True),))
    journal.advance(MachineState.RUNNING)
    last = json.loads((tmp_path / FILE).read_text())
    assert (last["state"], last["sandbox"], last["process"]["pid"]) == ("running", "sandbox-id", os.getpid())
    assert [path.name for path in tmp_path.iterdir()] == [FILE]
    assert read(tmp_path) == journal.entry


def test_a_journal_of_an_older_release_knows_no_volumes(tmp_path: Path) -> None:
    journal = Journal(tmp_path, Entry("beef", 3, "base", "0123", MachineState.PLANNED))
    values = json.loads((tmp_path / FILE).read_text())
    del values["volumes"]
    (tmp_path / FILE).write_text(json.dumps(values))
    assert read(tmp_path) == journal.entry


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"process": 1}', b'{"volumes": 1}', b"\xff"])
def test_a_journal_that_makes_no_sense_is_none(tmp_path: Path, data: bytes) -> None:
    (tmp_path / FILE).write_bytes(data)
    assert read(tmp_path) is None


@pytest.mark.parametrize(
    ("state", "elsewhere", "goes"),
    [
        ("planned", "", False),
        ("blank", "", False),
        ("rehearsed", "", False),
        ("claimed", "", False),
        ("running", "", True),
        ("running", "asleep", True),
        ("running", "running", True),
        ("hibernating", "", True),
        ("hibernating", "asleep", False),
        ("rewinding", "", True),
        ("rewinding", "running", False),
        ("ending", "", False),
    ],
)
def test_which_machines_go_on(state: str, elsewhere: str, goes: bool) -> None:
    entry = Entry("beef", 3, "base", "0123", MachineState(state), sandbox="s")
    assert should_adopt(entry, *({"s"} if elsewhere == each else set() for each in ("asleep", "running"))) is goes


def test_a_machine_that_was_only_looked_at_does_not_go_on() -> None:
    assert not should_adopt(Entry("beef", 3, "base", "0123", MachineState.RUNNING), set(), set())


@pytest.fixture
def pool(tmp_path: Path) -> Pool:
    pool = Pool(tmp_path / "pool", reflink=False)
    for each in (pool.snapshots, pool.modules, pool.machines):
        each.mkdir(parents=True)
    return pool


def bake(tmp_path: Path, key: str) -> Path:
    baked = tmp_path / f"baked-{key}"
    baked.mkdir()
    for name in ("memory", "devices", "base.img", "modules.img", "kernel", "initramfs"):
        (baked / name).write_bytes(key.encode())
    make_overlay(baked / "root.qcow2", 2**20)
    (baked / "manifest.json").write_bytes(replace(MANIFEST, key=key).to_json())
    return baked


def test_a_template_is_found_by_name_and_alias(tmp_path: Path, pool: Pool) -> None:
    templates = Templates(tmp_path / "records", pool)
    with pytest.raises(NotFoundError) as unknown:
        templates.get("base")
    assert "template build" in (unknown.value.hint or "")
    installed = templates.install(TEMPLATE, bake(tmp_path, "v1"))
    assert installed.template == TEMPLATE
    assert templates.get("ubuntu-24.04") == installed == templates.list()[0]
    assert installed.snapshot.memory.read_bytes() == b"v1"
    assert installed.snapshot.base.read_bytes() == b"v1"
    with pytest.raises(NotFoundError) as other:
        templates.get("../records/base")
    assert other.value.hint == "templates here: base"


def test_each_owner_has_names_of_its_own_and_those_of_everybody(tmp_path: Path, pool: Pool) -> None:
    templates = Templates(tmp_path / "records", pool)
    of_all = templates.install(TEMPLATE, bake(tmp_path, "v1"))
    acme, rival = (replace(TEMPLATE, name="app", owner=each, version=each, aliases=()) for each in ("acme", "rival"))
    for each in (acme, rival):
        templates.install(each, bake(tmp_path, each.version))
    assert [each.template for each in templates.list()] == [TEMPLATE, acme, rival]
    assert Templates(tmp_path / "records", pool).list() == templates.list(), "as the next engine reads it"
    assert [templates.get("app", owner).template for owner in ("acme", "rival")] == [acme, rival]
    assert templates.get("ubuntu-24.04", "acme") == templates.get("base", "rival") == of_all
    assert templates.find("app") is templates.find("base", "acme") is None
    for owner, usable in (("", "base"), ("third", "base"), ("acme", "app, base")):
        with pytest.raises(NotFoundError) as unknown:
            templates.get("nope", owner)
        assert unknown.value.hint == f"templates here: {usable}"


def test_a_removed_templates_name_is_free_and_its_version_goes_when_it_is_old(tmp_path: Path, pool: Pool) -> None:
    templates, machine = Templates(tmp_path / "records", pool), pool.machines / "made of acme"
    machine.mkdir()
    acme, rival = (replace(TEMPLATE, name="app", owner=each, version=each) for each in ("acme", "rival"))
    installed = [templates.install(each, bake(tmp_path, each.version)) for each in (acme, rival)]
    made = link_base(installed[0], machine)
    assert templates.remove("app", "acme").template == acme
    for name, owner in (("app", "acme"), ("app", ""), ("ubuntu-24.04", "rival"), ("../records/rival~app", "")):
        with pytest.raises(NotFoundError):
            templates.remove(name, owner)
    assert [each.template for each in templates.list()] == [rival]
    assert templates.remove_unused(time.time() + 86400) == ("acme",)
    assert made.snapshot.memory.read_bytes() == b"acme", "what runs has its files"
    assert templates.install(replace(acme, version="v2"), bake(tmp_path, "v2")).key == "v2"


def test_builds_that_make_the_same_install_it_together(
    pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two templates with equal recipes, built at once, have one version."""
    baked, together = bake(tmp_path, "v1"), threading.Barrier(4)
    original = catalog._bring_in

    def slowly(*arguments: Any) -> None:
        brought.append(arguments)
        time.sleep(0.2)  # the others come meanwhile
        original(*arguments)

    def install(name: str) -> str:
        together.wait()
        return Templates(tmp_path / "records", pool).install(replace(TEMPLATE, name=name), baked).key

    brought: list[object] = []
    monkeypatch.setattr(catalog, "_bring_in", slowly)
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(install, ("a", "b", "c", "d"))) == ["v1"] * 4
    assert len(brought) == 1
    assert [each.name for each in Templates(tmp_path / "records", pool).list()] == ["a", "b", "c", "d"]


def test_another_process_may_install_a_newer_one(tmp_path: Path, pool: Pool) -> None:
    reader, writer = (Templates(tmp_path / "records", pool) for _ in range(2))
    writer.install(TEMPLATE, bake(tmp_path, "v1"))
    assert reader.get("base").key == "v1"
    writer.install(replace(TEMPLATE, version="v2"), bake(tmp_path, "v2"))
    assert reader.get("base").key == "v2"
    assert reader.get("base").snapshot.manifest.key == "v2"


def test_a_template_whose_files_are_gone_is_not_offered(tmp_path: Path, pool: Pool) -> None:
    installed = Templates(tmp_path / "records", pool).install(TEMPLATE, bake(tmp_path, "v1"))
    (installed.snapshot.directory / "manifest.json").unlink()
    assert Templates(tmp_path / "records", pool).list() == []


def test_installing_again_is_no_error(tmp_path: Path, pool: Pool) -> None:
    baked = bake(tmp_path, "v1")
    for _ in range(2):
        Templates(tmp_path / "records", pool).install(TEMPLATE, baked)
    assert sorted(path.name for path in pool.snapshots.iterdir()) == ["v1"]


def test_old_versions_leave_the_pool_and_what_was_made_of_them_keeps_its_files(tmp_path: Path, pool: Pool) -> None:
    templates, machine = Templates(tmp_path / "records", pool), pool.machines / "made of v1"
    machine.mkdir()
    made = link_base(templates.install(TEMPLATE, bake(tmp_path, "v1")), machine)
    shared = {path.name for path in pool.modules.iterdir()}
    templates.install(replace(TEMPLATE, version="v2"), bake(tmp_path, "v2"))
    assert templates.remove_unused(time.time()) == (), "another process may be about to name it"
    tomorrow = time.time() + 86400
    assert templates.remove_unused(tomorrow) == ("v1",)
    assert [path.name for path in pool.snapshots.iterdir()] == ["v2"]
    assert shared <= {path.name for path in pool.modules.iterdir()}, "the machine has links to them"
    assert (made.snapshot.memory.read_bytes(), made.snapshot.base.read_bytes()) == (b"v1", b"v1")
    shutil.rmtree(machine)
    assert templates.remove_unused(tomorrow) == ()
    left = {path.name for path in pool.modules.iterdir()}
    assert left == {path.name for path in pool.modules.iterdir() if path.stat().st_nlink > 1} != shared
    assert templates.get("base").snapshot.initramfs.read_bytes() == b"v2"


def overwrite(memory: Path) -> None:
    """What a machine that was taken over does to the image that it shares with others, its size unchanged."""
    made = memory.stat().st_mtime_ns

    def written() -> bool:
        with memory.open("r+b") as file:
            file.write(b"x")
        return memory.stat().st_mtime_ns != made  # a kernel's clock of files may stand still for milliseconds

    eventually(written, 60, "the file system tells the time")


def test_memory_that_somebody_wrote_to_is_never_shared_again(tmp_path: Path, pool: Pool) -> None:
    baked, templates = bake(tmp_path, "v1"), Templates(tmp_path / "records", pool)
    installed = templates.install(TEMPLATE, baked)
    before, after = pool.machines / "before", pool.machines / "after"
    for each in (before, after):
        each.mkdir()
    machine = link_base(installed, before)
    overwrite(machine.snapshot.memory)
    said = "the memory image of snapshot v1 was changed after it was made"
    with pytest.raises(ConflictError, match=said) as refused:
        installed.snapshot.check(HERE)
    assert "template build" in (refused.value.hint or "")
    with pytest.raises(ConflictError, match=said):
        link_base(installed, after)
    again = templates.install(TEMPLATE, baked)
    again.snapshot.check(HERE)
    assert again.snapshot.memory.read_bytes() == b"v1"
    assert again.snapshot != installed.snapshot
    assert sorted(path.name for path in pool.snapshots.iterdir()) == ["v1"]


def trial(tmp_path: Path, vmm: str = "qemu 7") -> Trial:
    driver = QemuDriver(Path("/no/qemu"), vmm, cpus_on("0011"))
    return Trial(driver, Boot(Path("/no/kernel"), Path("/no/initramfs")), tmp_path / "s")


@pytest.mark.anyio
async def test_the_accelerator_is_asked_for_once(tmp_path: Path) -> None:
    """Here no machine can boot, so the first answer is emulation; later ones come from the file."""
    first = await choose(tmp_path / "answers", trial(tmp_path))
    assert first.accelerator is Accelerator.TCG and first.reason
    (answer,) = (tmp_path / "answers").iterdir()
    answer.write_text(json.dumps({"accelerator": "kvm", "reason": "kept"}))
    assert await choose(tmp_path / "answers", trial(tmp_path)) == Choice(Accelerator.KVM, "kept")
    answer.write_text("damaged")
    assert (await choose(tmp_path / "answers", trial(tmp_path))).accelerator is Accelerator.TCG


@pytest.mark.anyio
async def test_another_vmm_or_another_boot_of_the_host_is_asked_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await choose(tmp_path / "answers", trial(tmp_path))
    await choose(tmp_path / "answers", trial(tmp_path, vmm="qemu 8"))
    monkeypatch.setattr(accelerator, "boot_id", lambda: "another boot")
    await choose(tmp_path / "answers", trial(tmp_path))
    assert len(list((tmp_path / "answers").iterdir())) == 3


@pytest.mark.anyio
async def test_every_listener_hears_every_event() -> None:
    source = Events()
    source.publish(MachineDied("a", 0, "nobody listens"))
    async with source.subscribe() as one, source.subscribe() as other:
        died = MachineDied("a", 1, "killed")
        source.publish(died)
        for listener in (one, other):
            assert await listener.receive() == died


@pytest.mark.anyio
async def test_a_listener_that_is_too_slow_is_told_by_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "BACKLOG", 2)
    source = Events()
    async with source.subscribe() as slow:
        for number in range(5):
            source.publish(MachineDied(str(number), 1, "killed"))
        assert [(await slow.receive()).sandbox_id for _ in range(2)] == ["0", "1"]
        with pytest.raises(anyio.EndOfStream):
            await slow.receive()


class Recorded:
    def __init__(self) -> None:
        self.seen: list[tuple[str, ...]] = []

    def begin(self, title: str) -> None:
        self.seen.append(("begin", title))

    def line(self, text: str) -> None:
        self.seen.append(("line", text))

    def end(self, title: str, seconds: float, note: str) -> None:
        self.seen.append(("end", title, note))


def test_steps_never_overlap() -> None:
    progress = Recorded()
    with Steps(progress) as steps:
        steps.next("one")
        steps.note("3 MB")
        steps.next("two")
    assert progress.seen == [("begin", "one"), ("end", "one", "3 MB"), ("begin", "two"), ("end", "two", "")]


def test_a_step_that_failed_did_not_end_well() -> None:
    progress = Recorded()
    with pytest.raises(KeyError), Steps(progress) as steps:
        steps.next("one")
        raise KeyError
    assert progress.seen == [("begin", "one")]


@pytest.mark.parametrize(("size", "text"), [(0, "0.0 MB"), (1_500_000, "1.5 MB"), (256_400_000, "256 MB")])
def test_sizes(size: int, text: str) -> None:
    assert megabytes(size) == text


def test_laps_add_up() -> None:
    watch = Stopwatch(iter([1.0, 1.5, 1.75, 3.0, 4.0]).__next__)
    for name in ("one", "two", "one"):
        watch.lap(name)
    assert watch.laps == {"one": 1750.0, "two": 250.0}
    assert watch.elapsed() == 3000.0
