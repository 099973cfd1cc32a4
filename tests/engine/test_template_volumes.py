"""A template that brings volumes along: each sandbox has clones of its own, which a create may name."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from pandastack.contract.sandboxes import BootMode
from pandastack.contract.volumes import AttachVolume, CreateVolume, MountRef, OwnVolume
from pandastack.engine.engine import Engine, open_engine
from pandastack.engine.http.sandboxes import started
from pandastack.engine.machines.sandbox import Sandbox
from pandastack.engine.origins.volumes import MIB, resize
from pandastack.engine.settings import Settings
from pandastack.errors import BadRequestError, ConflictError, NotFoundError
from tests.support.installation import Install, Installation, eventually
from tests.support.machines import run, spec

pytestmark = pytest.mark.anyio

OWN = "/var/lib/data"
SETTINGS = f"""
warm_up = ["echo baked > {OWN}/file; sync"]
[[volumes]]
path = "{OWN}"
size_mb = 64
"""


@pytest.fixture(scope="module")
def place(install: Install, tmp_path_factory: pytest.TempPathFactory) -> Installation:
    place, folder = install("base"), tmp_path_factory.mktemp("recipes") / "stored"
    folder.mkdir()
    (folder / "Dockerfile").write_text("FROM base\n")
    (folder / "template.toml").write_text(SETTINGS)
    place.build(str(folder))
    return place


@pytest.fixture(params=[0, 1], ids=["made-anew", "made-ahead"])
async def engine(request: pytest.FixtureRequest, place: Installation) -> AsyncIterator[Engine]:
    async with open_engine(place.layout, Settings(ready_machines=request.param)) as engine:
        if request.param:
            engine.warm_pool.replenish(engine.templates.get("stored"))
            await anyio.to_thread.run_sync(eventually, lambda: _waits(engine), 60, "machines wait")
        yield engine


def _waits(engine: Engine) -> bool:
    return any(each.template.name == "stored" for kind in engine.warm_pool.waiting() for each in kind)


async def create(engine: Engine, *volumes: AttachVolume) -> Sandbox:
    return await engine.sandboxes.create(spec(), "stored", volumes=volumes)


async def test_each_sandbox_has_a_clone_of_its_templates_volume(engine: Engine) -> None:
    one, two = [await create(engine) for _ in range(2)]
    for each in (one, two):
        assert await run(each, f"findmnt -no SOURCE {OWN}; cat {OWN}/file") == "/dev/vdb\nbaked"
        await run(each, f"echo {each.id} >> {OWN}/file; sync; echo 3 > /proc/sys/vm/drop_caches")
    assert await run(one, f"cat {OWN}/file") == f"baked\n{one.id}"
    assert engine.volumes.list() == ()
    assert started(one, BootMode.SNAPSHOT).own_volumes == (OwnVolume(OWN, 64),)
    kept = await engine.volumes.create(CreateVolume(str(uuid.uuid4()), 64, MountRef(one.id, OWN)))
    await engine.lifecycle.hibernate(two.id)
    woken = await engine.lifecycle.wake(two.id)
    assert await run(woken, f"cat {OWN}/file") == f"baked\n{two.id}"
    for each in (one, woken):
        await engine.sandboxes.delete(each.id)
    other = await create(engine, AttachVolume(kept.id, "/mnt/kept"))
    assert await run(other, f"findmnt -no SOURCE /mnt/kept; cat /mnt/kept/file {OWN}/file") == (
        f"/dev/vdc\nbaked\n{one.id}\nbaked"
    )
    await engine.sandboxes.delete(other.id)
    await engine.volumes.delete(kept.id)


async def test_a_clone_grows_as_a_volume_does(engine: Engine) -> None:
    one, two = [await create(engine) for _ in range(2)]
    size = f"df --output=size -BM {OWN} | tail -1 | tr -d M"
    await run(one, f"(while true; do date >> {OWN}/busy; done) >/dev/null 2>&1 &")
    assert await engine.volumes.grow_own(one.id, OWN, 256) == OwnVolume(OWN, 256)
    assert started(one, BootMode.SNAPSHOT).own_volumes == (OwnVolume(OWN, 256),)
    assert int(await run(one, size)) > 200 > 64 > int(await run(two, size))
    resize(two.origin.snapshot.disks[1].path, 128 * MIB)  # as far as an engine came that was killed
    assert await engine.volumes.grow_own(two.id, OWN, 128) == OwnVolume(OWN, 128)
    assert int(await run(two, size)) > 100
    for path, mb, error in (("/mnt/none", 512, NotFoundError), (OWN, 64, BadRequestError)):
        with pytest.raises(error) as refused:
            await engine.volumes.grow_own(one.id, path, mb)
        assert refused.value.field == ("size_mb" if path == OWN else "path")
    await engine.lifecycle.hibernate(one.id)
    with pytest.raises(ConflictError, match="hibernated"):
        await engine.volumes.grow_own(one.id, OWN, 512)
    woken = await engine.lifecycle.wake(one.id)
    assert int(await run(woken, size)) > 200
    assert await engine.volumes.grow_own(one.id, OWN, 512) == OwnVolume(OWN, 512)
    assert int(await run(woken, size)) > 400
    for each in (woken, two):
        await engine.sandboxes.delete(each.id)
    named = await create(engine, AttachVolume(str(uuid.uuid4()), OWN))
    with pytest.raises(ConflictError, match="has an id"):
        await engine.volumes.grow_own(named.id, OWN, 128)
    await engine.sandboxes.delete(named.id)


async def test_a_create_may_name_the_clone(engine: Engine) -> None:
    volume = str(uuid.uuid4())
    waiting = {each.name for each in engine.pool.machines.iterdir()}
    sandbox = await create(engine, AttachVolume(volume, OWN))
    assert started(sandbox, BootMode.SNAPSHOT).own_volumes == ()
    assert not waiting or sandbox.journal.entry.machine in waiting, "a machine that was made ahead serves, too"
    found = engine.volumes.get(volume)
    assert (found.size_mb, found.writer) == (64, sandbox.id)
    await engine.volumes.grow(volume, 256)
    assert int(await run(sandbox, f"df --output=size -BM {OWN} | tail -1 | tr -d M")) > 200
    await run(sandbox, f"echo named > {OWN}/file")
    await engine.sandboxes.delete(sandbox.id)
    assert engine.volumes.get(volume).size_mb * MIB == 256 * MIB
    with pytest.raises(ConflictError, match="of its own") as there:
        await create(engine, AttachVolume(volume, OWN))
    assert there.value.field == "volumes[0].path"
    for path in ("/var/lib", f"{OWN}/below"):
        with pytest.raises(BadRequestError, match="above or below") as near:
            await create(engine, AttachVolume(volume, path))
        assert near.value.field == "volumes[0].path"
    with pytest.raises(BadRequestError, match="written to"):
        await create(engine, AttachVolume(str(uuid.uuid4()), OWN, read_only=True))
    with pytest.raises(BadRequestError, match="places for 3"):
        await create(engine, *(AttachVolume(str(uuid.uuid4()), f"/mnt/{n}") for n in range(4)))
    other = await engine.sandboxes.create(spec(), "base", volumes=[AttachVolume(volume, "/mnt/data")])
    assert await run(other, "cat /mnt/data/file") == "named"
    await engine.sandboxes.delete(other.id)
    await engine.volumes.delete(volume)


def test_a_template_with_volumes_is_not_exported(place: Installation, tmp_path: Path) -> None:
    done = place.cli("template", "export", "stored", str(tmp_path / "archive"))
    assert done.returncode != 0 and "has volumes" in done.stderr
