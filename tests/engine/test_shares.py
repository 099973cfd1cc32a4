"""What owners of templates may have: how many, which names, and whose builds are forgotten."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from pandastack.contract.builds import Build, BuildStatus
from pandastack.disks.pool import Pool
from pandastack.engine.build import shares
from pandastack.engine.build.bake import BakeSpec, bake_key
from pandastack.engine.build.host import BuildHost
from pandastack.engine.build.shares import Shares, forgettable, refuse_shadow
from pandastack.engine.origins.catalog import Templates
from pandastack.engine.origins.origin import Origin
from pandastack.errors import ForbiddenError, QuotaError
from pandastack.images.image import Image
from pandastack.images.template import TemplateRecipe, load_template
from pandastack.model.accelerator import Accelerator
from pandastack.model.template import Template
from pandastack.snapshots.manifest import Snapshot
from tests.support.manifests import MANIFEST, TEMPLATE

FEW = Shares(templates=2, builds=2)


def build(owner: str, status: BuildStatus = BuildStatus.QUEUED, name: str = "app", at: float = 1.0) -> Build:
    return Build("id", name, status, at, owner=owner)


def origin(template: Template) -> Origin:
    return Origin(template, Snapshot(Path("/no"), MANIFEST))


Recipe = Callable[..., TemplateRecipe]


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    def recipe(name: str, owner: str = "acme", settings: str = "") -> TemplateRecipe:
        folder = tmp_path / "recipe"
        folder.mkdir(exist_ok=True)
        (folder / "Dockerfile").write_text("FROM base")
        (folder / "template.toml").write_text(f'name = "{name}"\n{settings}')
        return replace(load_template(folder), owner=owner)

    return recipe


def test_an_owner_has_so_many_builds_at_once() -> None:
    builds = [build("acme"), build("acme", BuildStatus.RUNNING), build("acme", BuildStatus.DONE), build("rival")]
    with pytest.raises(QuotaError, match="2 builds of this workspace") as refused:
        FEW.check_builds(builds, "acme")
    assert refused.value.status_code == 429 and refused.value.hint
    FEW.check_builds(builds, "rival")
    FEW.check_builds([build(""), build(""), build("")], "")


def test_all_owners_together_have_so_many_builds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shares, "WAITING_MAX", 3)
    builds = [build("acme"), build("rival"), build("")]
    for owner in ("third", ""):
        with pytest.raises(QuotaError, match="3 builds are waiting"):
            FEW.check_builds(builds, owner)
    FEW.check_builds([*builds[1:], build("x", BuildStatus.FAILED)], "third")


def test_an_owner_has_so_many_templates_and_may_build_each_anew(recipe: Recipe) -> None:
    one = replace(TEMPLATE, name="one", owner="acme")
    templates = [origin(TEMPLATE), origin(one), origin(replace(one, owner="rival", name="other"))]
    FEW.check_templates(templates, [build("rival")], recipe("two"))
    builds = [build("acme", name="two"), build("acme", BuildStatus.FAILED, name="three")]
    FEW.check_templates(templates, builds, recipe("one"))
    FEW.check_templates(templates, builds, recipe("two"))
    with pytest.raises(QuotaError, match="2 templates, of at most 2") as refused:
        FEW.check_templates(templates, builds, recipe("three"))
    assert refused.value.field == "name" and refused.value.hint
    FEW.check_templates(templates * 9, [], recipe("three", owner=""))


@pytest.mark.parametrize(
    ("name", "settings", "field"),
    [
        ("tools", "", "name"),
        ("base", "", "name"),
        ("ubuntu-24.04", "", "name"),
        ("app", 'aliases = ["fine", "ubuntu-24.04"]', "aliases"),
        ("app", 'aliases = ["tools"]', "aliases"),
    ],
)
def test_no_name_of_everybodys_templates_is_shadowed(
    tmp_path: Path, recipe: Recipe, name: str, settings: str, field: str
) -> None:
    class Known(Templates):
        def _load(self) -> dict[tuple[str, str], Origin]:
            return {("", "base"): origin(TEMPLATE), ("rival", "theirs"): origin(replace(TEMPLATE, owner="rival"))}

    known = Known(tmp_path, Pool(tmp_path, reflink=False))
    with pytest.raises(ForbiddenError) as refused:
        refuse_shadow(recipe(name, settings=settings), ["tools"], known)
    assert (refused.value.field, refused.value.status_code) == (field, 403)
    refuse_shadow(recipe("theirs", settings='aliases = ["app"]'), ["tools"], known)


def test_owners_share_no_capture(tmp_path: Path) -> None:
    """Its memory may hold keys that a warm-up has made."""
    file = tmp_path / "file"
    file.write_bytes(b"x")
    driver = SimpleNamespace(identity="qemu 7")
    kernel = SimpleNamespace(sha256="k", modules_sha256="m")
    host = SimpleNamespace(driver=driver, accelerator=Accelerator.TCG, cpu_flags="", kernel=kernel)
    host.initramfs, host.fsck, host.boot = file, file, SimpleNamespace(cmdline="")
    spec = BakeSpec("app", Image("i", file, 512, 1), 1, 512, 1, 512, 512, (), ("ssh-keygen",), {}, 4)
    keys = [bake_key(cast(BuildHost, host), replace(spec, owner=each)) for each in ("", "acme", "rival")]
    assert len(set(keys)) == 3


def test_the_builds_of_the_owner_who_has_most_are_forgotten_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shares, "REMEMBERED_MAX", 4)
    busy = [replace(build("busy", BuildStatus.DONE, at=10.0 + each), id=f"b{each}") for each in range(6)]
    quiet = replace(build("quiet", BuildStatus.DONE, at=1.0), id="q")
    running = replace(build("busy", BuildStatus.RUNNING, at=0.0), id="r")
    gone = forgettable([*busy, quiet, running])
    assert [each.id for each in gone] == ["b0", "b1", "b2", "b3"]
    many = [replace(build(f"o{each}", BuildStatus.DONE, at=float(each)), id=str(each)) for each in range(6)]
    assert [each.id for each in forgettable(many)] == ["0", "1"]
    assert forgettable([build("busy")] * 9) == [], "what runs is not forgotten"
    assert Counter(each.owner for each in forgettable(busy[:4])) == Counter()
