"""Templates as an engine has them on its disk, and as its client is told of them."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from pandastack.cluster import EngineClient
from pandastack.contract.templates import Freshness
from pandastack.disks.pool import Pool
from pandastack.engine.build.rebake import Due
from pandastack.engine.engine import Engine
from pandastack.engine.http.app import create_engine_app
from pandastack.engine.origins.catalog import Templates
from pandastack.model.template import Template
from tests.support.manifests import MANIFEST

TEMPLATE = Template(
    name="base",
    description="Debian",
    cpu=1,
    memory_mb=256,
    disk_mb=512,
    tools=("git", "ü"),
    aliases=("ubuntu-24.04",),
    category="base",
    base="debian:bookworm",
    env={"LANG": "C"},
    version="v1",
    image="i1",
    size_bytes=1,
    built_at="2026-01-01T00:00:00+00:00",
)


@pytest.fixture
def templates(tmp_path: Path) -> Templates:
    pool = Pool(tmp_path / "pool", reflink=False)
    for each in (pool.snapshots, pool.modules, tmp_path / "baked"):
        each.mkdir(parents=True)
    for name in ("memory", "devices", "base.img", "root.qcow2", "modules.img", "kernel", "initramfs"):
        (tmp_path / "baked" / name).write_bytes(b"x")
    (tmp_path / "baked" / "manifest.json").write_bytes(MANIFEST.to_json())
    templates = Templates(tmp_path / "records", pool)
    templates.install(TEMPLATE, tmp_path / "baked")
    return templates


@pytest.mark.anyio
async def test_a_template_is_told_as_it_is_on_the_disk(templates: Templates) -> None:
    rebakes = SimpleNamespace(staleness=lambda _: Due("its recipe has changed"))
    engine = cast(Engine, SimpleNamespace(templates=templates, builds=None, rebakes=rebakes))
    async with EngineClient.in_process(create_engine_app(engine)) as client:
        (listed,) = await client.templates()
        assert await client.template("ubuntu-24.04") == listed
    told = asdict(listed)
    made_with = told.pop("manifest")
    assert (told.pop("state"), told.pop("state_reason")) == (Freshness.STALE, "its recipe has changed")
    of_the_engine_alone = ("rehearse", "services", "network", "disk_mb_per_second", "disk_operations_per_second")
    of_the_engine_alone += ("previews", "wake", "config", "foreign", "warm_up", "baked_as", "recipe")
    assert told == {key: value for key, value in asdict(TEMPLATE).items() if key not in of_the_engine_alone}
    assert made_with.pop("quiet") == MANIFEST.at_frame_boundary
    assert made_with.items() <= asdict(MANIFEST).items()
    assert {"key", "vmm", "cpu_flags", "kernel_release", "parent"} <= made_with.keys()
