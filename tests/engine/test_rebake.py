"""Which templates are stale, and what creates are told meanwhile. The bakes themselves: tests/system/test_rebake.py."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pandastack.engine.build.bake import bake_key
from pandastack.engine.build.builds import Builds
from pandastack.engine.build.host import BuildHost
from pandastack.engine.build.install import recipe_digest
from pandastack.engine.build.rebake import Due, Rebakes, bake_spec, find_staleness
from pandastack.engine.http.templates import template_of
from pandastack.engine.origins.catalog import Templates
from pandastack.engine.origins.origin import Origin
from pandastack.errors import CapacityError, ConflictError
from pandastack.model.accelerator import Accelerator
from pandastack.snapshots.manifest import Snapshot
from pandastack.vmm.plan import Boot
from pandastack.vmm.qemu.driver import QemuDriver
from tests.support.manifests import MANIFEST, TEMPLATE

DRIVER = QemuDriver(Path("/nowhere"), MANIFEST.vmm, {Accelerator.TCG: MANIFEST.cpu_flags})


@pytest.fixture
def host(tmp_path: Path) -> BuildHost:
    """What of a build host goes into the key of a bake."""
    file = tmp_path / "file"
    file.write_bytes(b"x")
    kernel = SimpleNamespace(version=MANIFEST.kernel_version, sha256="00", modules_sha256="m1")
    facts = SimpleNamespace(
        driver=DRIVER,
        accelerator=Accelerator.TCG,
        cpu_flags=MANIFEST.cpu_flags,
        kernel=kernel,
        initramfs=file,
        fsck=file,
        boot=Boot(file, file, ""),
        recipes={},
    )
    return cast(BuildHost, facts)


def installed(host: BuildHost, **changes: Any) -> Origin:
    """A template as a bake on this host would have installed it, but for what ``changes`` its record."""
    origin = Origin(replace(TEMPLATE, warm_up=("true",)), Snapshot(Path("/nowhere"), MANIFEST))
    key = bake_key(host, bake_spec(origin))
    return replace(origin, template=replace(origin.template, **{"version": key, **changes}))


def test_a_template_that_would_be_the_same_is_not_stale(host: BuildHost) -> None:
    assert find_staleness(host, installed(host)) == ""
    imported = installed(host)
    baked_elsewhere = replace(imported.template, version="f" * 64, baked_as=imported.template.version)
    assert find_staleness(host, replace(imported, template=baked_elsewhere)) == ""


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("vmm", "QEMU 0.1", f"it was baked with VMM QEMU 0.1, this host has {MANIFEST.vmm}"),
        ("cpu_flags", "max:00", f"it was baked with CPU max:00, this host has {MANIFEST.cpu_flags}"),
        ("kernel_version", "5.10", f"it was baked with kernel 5.10, this host has {MANIFEST.kernel_version}"),
        ("accelerator", "kvm", "it was baked with accelerator kvm, this host has tcg"),
        ("built_at", "yesterday", "what a bake adds to the image has changed"),
    ],
)
def test_the_difference_is_named(host: BuildHost, field: str, value: str, reason: str) -> None:
    origin = installed(host, version="e" * 64)
    made = replace(MANIFEST, **{field: value})
    assert find_staleness(host, replace(origin, snapshot=Snapshot(Path("/nowhere"), made))) == reason


def test_one_of_a_release_that_did_not_record_its_warm_up_is_left_alone(host: BuildHost) -> None:
    assert find_staleness(host, installed(host, version="e" * 64, warm_up=None)) == ""


def test_a_changed_recipe_is_a_reason_also_below(host: BuildHost, tmp_path: Path) -> None:
    recipes = {name: tmp_path / name for name in ("low", "base")}
    for folder, below in ((recipes["low"], "debian:bookworm"), (recipes["base"], "low")):
        folder.mkdir()
        (folder / "Dockerfile").write_text(f"FROM {below}\n")
    cast(Any, host).recipes = recipes
    origin = installed(host, recipe=recipe_digest(recipes, "base"))
    assert find_staleness(host, origin) == ""
    (recipes["low"] / "template.toml").write_text("disk_mb = 512\n")
    assert find_staleness(host, origin) == "its recipe has changed"
    assert find_staleness(host, installed(host, recipe="")) == ""  # it was built from something else


def test_a_recipe_that_is_built_on_itself_has_a_digest(tmp_path: Path) -> None:
    recipes = {"a": tmp_path / "a"}
    recipes["a"].mkdir()
    (recipes["a"] / "Dockerfile").write_text("FROM a\n")
    assert len(recipe_digest(recipes, "a")) == 64


@pytest.fixture
def rebakes() -> Rebakes:
    return Rebakes(cast(Builds, None), cast(Templates, None), cast(Any, None), DRIVER, enabled=True)


def of(**changes: Any) -> Origin:
    return Origin(TEMPLATE, Snapshot(Path("/nowhere"), replace(MANIFEST, **changes)))


def test_what_a_template_says_of_itself(rebakes: Rebakes) -> None:
    def told(origin: Origin) -> tuple[str, str]:
        template = template_of(origin, rebakes.staleness(origin))
        return template.state, template.state_reason

    assert told(of()) == ("current", "")
    state, reason = told(of(vmm="QEMU 0.1"))
    assert state == "stale" and "was made with vmm QEMU 0.1" in reason
    due = rebakes._due["", TEMPLATE.name, TEMPLATE.version] = Due("another kernel")
    assert told(of()) == ("stale", "another kernel")
    due.build = "b1"
    assert told(of()) == ("rebaking", "another kernel")
    due.error = "no space"
    assert told(of()) == ("stale", "another kernel; baking it again failed: no space")


def test_a_create_that_has_to_wait_may_try_again(rebakes: Rebakes) -> None:
    refusal, unfit = ConflictError("made with another VMM"), of(vmm="QEMU 0.1")
    assert rebakes.explain(unfit, refusal) is refusal  # nobody bakes it
    due = rebakes._due["", TEMPLATE.name, TEMPLATE.version] = Due("another VMM", build="b1")
    told = rebakes.explain(unfit, refusal)
    assert isinstance(told, CapacityError)
    assert (told.status_code, told.retry_after) == (503, 15)
    assert told.message == "template base is being baked again: made with another VMM" and "b1" in str(told.hint)
    assert rebakes.explain(of(), refusal) is refusal  # it was refused for something else
    due.error = "no space"
    assert rebakes.explain(unfit, refusal) is refusal
