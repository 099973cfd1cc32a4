"""Descriptions of roots: what is known of a recipe's stages and bases before anything is made."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import cast

import pytest

from pandastack.engine.build.describe import Described, Describing
from pandastack.engine.build.host import BuildHost
from pandastack.engine.build.installed import image_of
from pandastack.engine.build.oci import Importer
from pandastack.engine.build.progress import Steps
from pandastack.engine.build.renewals import Renewals
from pandastack.engine.build.root import layers_of
from pandastack.engine.origins.origin import Origin
from pandastack.errors import BadRequestError, BuildError
from pandastack.images.actions import Action, DirectoryAction, ImageConfig, RunAction
from pandastack.images.cache import Cache
from pandastack.images.given import Given
from pandastack.images.image import DISK, write_manifest
from pandastack.images.template import load_template
from pandastack.model.template import Template
from pandastack.snapshots.manifest import Snapshot
from tests.support.manifests import MANIFEST, TEMPLATE
from tests.support.oci_images import Layout, layer, member

pytestmark = pytest.mark.anyio


class Silent:
    def begin(self, title: str) -> None: ...
    def line(self, text: str) -> None: ...
    def advance(self, done: int, total: int) -> None: ...
    def end(self, title: str, seconds: float, note: str) -> None: ...


@pytest.fixture
def shipped(tmp_path: Path) -> Mapping[str, Path]:
    texts = {
        "plain": "FROM debian:bookworm\nENV PLAIN=1\n",
        "tools": "FROM plain AS made\nRUN make\nFROM plain\nCOPY --from=made /a /a\nENV TOOLS=1\n",
        "ring": "FROM circle\n",
        "circle": "FROM plain\nFROM ring\n",
    }
    for name, text in texts.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "Dockerfile").write_text(text)
    return {name: tmp_path / name for name in texts}


async def describe(
    shipped: Mapping[str, Path],
    folder: Path,
    text: str,
    *,
    target: str = "",
    trusted: bool = False,
    settings: str = "",
    renewals: Renewals | None = None,
    owner: str = "",
    installed: Installed | None = None,
    given: Given | None = None,
    machine: str = "",
) -> Described:
    folder.mkdir(exist_ok=True)
    (folder / "Dockerfile").write_text(text)
    (folder / "template.toml").write_text(settings)
    recipe = replace(load_template(folder, trusted=trusted, target=target, given=given), owner=owner)
    renewals = renewals or Renewals(Cache(folder / "no-cache"))
    known = installed or {}
    describing = Describing(shipped, Steps(Silent()), renewals, lambda name, whose: known.get((whose, name)), machine)
    return await describing.recipe(recipe, (recipe.name,))


Installed = Mapping[tuple[str, str], Origin]
"""Installed templates by owner and name."""


def installed(*templates: Template) -> Installed:
    return {(each.owner, each.name): Origin(each, Snapshot(Path("/no"), MANIFEST)) for each in templates}


async def test_a_stage_is_built_on_another_and_copies_from_a_third(shipped: Mapping[str, Path], tmp_path: Path) -> None:
    text = "FROM plain AS one\nRUN a\nFROM one AS two\nRUN b\nFROM tools\nCOPY --from=two /x /x\n"
    root = await describe(shipped, tmp_path / "mine", text)
    made = root.made
    assert made and (made.name, made.below.base, list(made.sources)) == ("mine", "tools", [1])
    two = made.sources[1].made
    assert two and two.name == "stage two of mine" and two.below.made
    assert (two.below.made.name, two.below.made.below.made) == ("stage one of mine", None)
    assert root.base == "tools" and root.config.env["TOOLS"] == root.config.env["PLAIN"] == "1"


async def test_a_stage_without_anything_to_do_is_the_image_below(shipped: Mapping[str, Path], tmp_path: Path) -> None:
    text = "FROM plain\nRUN a\nFROM tools AS named\nENV A=1\nFROM named\nUSER u\n"
    root = await describe(shipped, tmp_path / "mine", text)
    assert root.made and root.made.name == "tools"
    assert (root.config.env["A"], root.config.user, root.base) == ("1", "u", "tools")


async def test_the_host_makes_what_machines_need_not(shipped: Mapping[str, Path], tmp_path: Path) -> None:
    text = "FROM plain AS dirs\nWORKDIR /w\nFROM dirs\nWORKDIR v\n"
    ours = await describe(shipped, tmp_path / "mine", text, trusted=True)
    assert ours.tree and ours.tree.directories == ("/w", "/w/v")
    theirs = await describe(shipped, tmp_path / "mine", text)
    assert theirs.made and theirs.tree is None


async def test_declared_packages_belong_to_the_target(shipped: Mapping[str, Path], tmp_path: Path) -> None:
    text = "FROM plain AS one\nRUN a\nFROM plain AS two\nCOPY --from=one / /\n"
    settings = '[packages]\ndebian = ["git"]\n'
    root = await describe(shipped, tmp_path / "mine", text, settings=settings)
    assert root.made and root.made.sources[0].made
    titles = [each.text for each in root.made.wanted.actions]
    assert titles == ["install the debian packages of template.toml", "COPY --from=one / /"]
    assert [each.text for each in root.made.sources[0].made.wanted.actions] == ["RUN a"]
    first = await describe(shipped, tmp_path / "mine", text, settings=settings, target="one")
    assert first.made and [each.text for each in first.made.wanted.actions] == [titles[0], "RUN a"]


async def test_what_the_target_does_not_need_is_not_looked_at(shipped: Mapping[str, Path], tmp_path: Path) -> None:
    text = "FROM no-such AS one\nFROM plain AS two\nCOPY missing /x\nFROM plain\nRUN a\n"
    assert (await describe(shipped, tmp_path / "mine", text)).made
    with pytest.raises(BadRequestError, match="line 1: FROM no-such: no such base"):
        await describe(shipped, tmp_path / "mine", text, target="one")
    with pytest.raises(BadRequestError, match="line 3: missing: no such file"):
        await describe(shipped, tmp_path / "mine", text, target="1")


async def test_arguments_choose_bases_and_stages(shipped: Mapping[str, Path], tmp_path: Path) -> None:
    text = "ARG BASE=nothing\nARG LAST=one\nFROM $BASE AS one\nARG V=1\nRUN a\nFROM plain AS two\nRUN b\nFROM $LAST\n"
    one = await describe(shipped, tmp_path / "mine", text, given=Given({"BASE": "plain", "V": "2"}))
    two = await describe(shipped, tmp_path / "mine", text, given=Given({"LAST": "two"}))
    assert one.made and two.made
    assert [each.made.wanted.actions[0].text for each in (one, two) if each.made] == ["RUN a", "RUN b"]
    assert one.arguments == {"V": "2"}
    with pytest.raises(BadRequestError, match="declares no ARG W"):
        await describe(shipped, tmp_path / "mine", text, given=Given({"W": "1"}))


async def test_a_base_never_gets_what_is_given_with_a_recipe(shipped: Mapping[str, Path], tmp_path: Path) -> None:
    text = "FROM tools\nARG V\nRUN --mount=type=secret,id=s a\n"
    plain = await describe(shipped, tmp_path / "mine", text)
    given = await describe(shipped, tmp_path / "mine", text, given=Given({"V": "2"}, {"s": b"x"}), owner="owner")
    assert plain.made and given.made
    assert plain.made.below.key == given.made.below.key and plain.key != given.key


async def test_another_machine_is_another_key_for_bases_too(shipped: Mapping[str, Path], tmp_path: Path) -> None:
    one, two = [await describe(shipped, tmp_path / "mine", "FROM tools\nRUN a\n", machine=each) for each in "12"]
    assert one.made and two.made
    assert one.made.below.key != two.made.below.key and one.key != two.key


def test_a_layer_ends_with_each_run() -> None:
    def action(number: int) -> Action:
        run = RunAction(str(number), number, "", (), {}, "/", "root")
        return run if number in (2, 3) else DirectoryAction(str(number), number, "", "/")

    def pieces(count: int) -> list[list[int]]:
        return [
            [each.line for each in piece] for piece in layers_of([action(number) for number in range(1, count + 1)])
        ]

    assert [pieces(count) for count in range(6)] == [
        [],
        [[1]],
        [[1, 2]],
        [[1, 2], [3]],
        [[1, 2], [3], [4]],
        [[1, 2], [3], [4, 5]],
    ]


async def test_templates_do_not_build_on_each_other_in_circles(shipped: Mapping[str, Path], tmp_path: Path) -> None:
    for name in ("ring", "circle"):
        with pytest.raises(BadRequestError, match="a template cannot be built from itself"):
            await describe(shipped, tmp_path / "mine", f"FROM plain AS a\nFROM {name}\nCOPY --from=a / /\n")
    with pytest.raises(BadRequestError, match="FROM tools: a template cannot be built from itself"):
        await describe(shipped, tmp_path / "tools", "FROM tools\nRUN a\n")


async def test_a_change_in_one_stage_leaves_the_others_alone(shipped: Mapping[str, Path], tmp_path: Path) -> None:
    text = (
        "FROM plain AS a\nRUN {}\nFROM plain AS b\nRUN b\nFROM plain\nRUN c\nCOPY --from=a / /a\nCOPY --from=b / /b\n"
    )
    old, new = [await describe(shipped, tmp_path / "mine", text.format(word)) for word in ("one", "two")]
    assert old.made and new.made
    assert old.made.sources[0].key != new.made.sources[0].key
    assert old.made.sources[1].key == new.made.sources[1].key
    pairs = zip(old.made.wanted.actions, new.made.wanted.actions, strict=True)
    assert [before.key == after.key for before, after in pairs] == [True, False, False]


def keys_of(root: Described) -> dict[str, list[str]]:
    assert root.made
    stages = [root.made, *(each.made for each in root.made.sources.values() if each.made)]
    return {each.name: [action.key for action in each.wanted.actions] for each in stages}


async def test_without_the_cache_every_step_has_a_new_key(shipped: Mapping[str, Path], tmp_path: Path) -> None:
    text = "FROM tools AS a\nRUN a\nFROM tools\nRUN b\nCOPY --from=a / /\n"

    async def described(text: str, renewals: Renewals) -> Described:
        return await describe(shipped, tmp_path / "mine", text, renewals=renewals)

    cache = Cache(tmp_path / "cache")
    cached = await described(text, Renewals(cache))
    first, second = Renewals(cache, anew=True), Renewals(cache, anew=True)
    one, two = await described(text, first), await described(text, second)
    keys = [key for root in (cached, one, two) for keys in keys_of(root).values() for key in keys]
    assert len(set(keys)) == len(keys) == 9
    assert len({root.key for root in (cached, one, two)}) == 3
    assert len({root.made.below.key for root in (cached, one, two) if root.made}) == 1, "bases come from the cache"
    assert (await described(text, Renewals(cache))).key == cached.key, "nothing has been made yet"
    await first.record()
    assert keys_of(await described(text, Renewals(cache))) == keys_of(one)
    await second.record()
    assert keys_of(await described(text, Renewals(cache))) == keys_of(two)
    longer = keys_of(await described(f"{text}RUN c\n", Renewals(cache)))
    assert longer["mine"][:2] == keys_of(two)["mine"], "a step that is added comes after the newest"


async def test_a_base_that_was_renewed_is_used_by_what_is_built_on_it(
    shipped: Mapping[str, Path], tmp_path: Path
) -> None:
    cache = Cache(tmp_path / "cache")
    old = await describe(shipped, tmp_path / "mine", "FROM tools\nRUN a\n", renewals=Renewals(cache))
    renewals = Renewals(cache, anew=True)
    recipe = load_template(shipped["tools"])
    base = await Describing(shipped, Steps(Silent()), renewals).recipe(recipe, ("tools",))
    await renewals.record()
    new = await describe(shipped, tmp_path / "mine", "FROM tools\nRUN a\n", renewals=Renewals(cache))
    assert new.made and old.made
    assert new.made.below.key == base.key != old.made.below.key
    assert new.made.wanted.actions[0].key != old.made.wanted.actions[0].key, "a layer fits one base only"


async def test_what_is_made_for_an_owner_has_keys_of_its_own(shipped: Mapping[str, Path], tmp_path: Path) -> None:
    text = "FROM tools AS a\nRUN a\nCOPY template.toml /t\nFROM tools\nCOPY --from=a / /\nRUN b\n"
    roots = [await describe(shipped, tmp_path / "mine", text, owner=each) for each in ("", "acme", "rival")]
    again = await describe(shipped, tmp_path / "mine", text, owner="acme")
    keys = [key for root in roots for keys in keys_of(root).values() for key in keys]
    assert len(set(keys)) == len(keys) == 12
    assert len({root.key for root in roots}) == 3
    assert len({root.made.below.key for root in roots if root.made}) == 1, "what is everybody's is made once"
    assert keys_of(again) == keys_of(roots[1])


CONFIG = ImageConfig(env={"PATH": "/bin", "OWN": "1"}, user="me", cmd=("serve",))
OWN = replace(
    TEMPLATE,
    name="app",
    owner="acme",
    disk_mb=10240,
    image="own-image",
    config=json.loads(json.dumps(asdict(CONFIG))),
)
SHARED = replace(OWN, name="shared", owner="", image="shared-image")


async def test_from_names_the_owners_templates_then_those_of_everybody(
    shipped: Mapping[str, Path], tmp_path: Path
) -> None:
    known = installed(OWN, SHARED, replace(OWN, name="shared", image="own-shared"), replace(SHARED, name="tools"))

    async def below(name: str, owner: str) -> Described:
        root = await describe(shipped, tmp_path / "mine", f"FROM {name}\nRUN a\n", owner=owner, installed=known)
        assert root.made and root.base == name
        return root.made.below

    assert [(await below("shared", owner)).key for owner in ("acme", "rival", "")] == [
        "own-shared",
        "shared-image",
        "shared-image",
    ]
    assert (await below("tools", "acme")).made, "a shipped template is described by its recipe"
    found = await below("app", "acme")
    assert (found.key, found.layer, found.disk_mb) == ("own-image", "own-image", OWN.disk_mb)
    root = await describe(shipped, tmp_path / "mine", "FROM app\nENV MORE=2\n", owner="acme", installed=known)
    assert (root.installed, root.made) == (OWN, None), "nothing is to be made"
    assert root.config == replace(CONFIG, env={**CONFIG.env, "MORE": "2"})


async def test_from_another_owners_template_is_from_nothing(shipped: Mapping[str, Path], tmp_path: Path) -> None:
    known, said = installed(OWN), []
    for owner, name in (("rival", "app"), ("", "app"), ("rival", "nope")):
        for text in ("FROM {}\nRUN a\n", "FROM plain\nFROM {}\n", "FROM {} AS x\nFROM plain\nCOPY --from=x / /\n"):
            with pytest.raises(BadRequestError) as refused:
                await describe(shipped, tmp_path / "mine", text.format(name), owner=owner, installed=known)
            said.append((str(refused.value).replace(name, "?"), refused.value.hint))
    assert len(set(said)) == 2, "the lines of FROM differ, and nothing else"
    assert all("no such base" in text for text, _ in said)


async def test_a_template_of_an_older_release_is_built_anew_first(shipped: Mapping[str, Path], tmp_path: Path) -> None:
    known = installed(replace(OWN, config=None))
    with pytest.raises(BadRequestError, match="FROM app: it was built by an older release") as refused:
        await describe(shipped, tmp_path / "mine", "FROM app\nRUN a\n", owner="acme", installed=known)
    assert refused.value.hint == "build app again"


async def test_a_template_is_not_built_on_its_former_version(shipped: Mapping[str, Path], tmp_path: Path) -> None:
    with pytest.raises(BadRequestError, match="a template cannot be built from itself"):
        await describe(shipped, tmp_path / "app", "FROM app\nRUN a\n", owner="acme", installed=installed(OWN))


def test_the_image_of_an_installed_template_is_that_of_the_cache(tmp_path: Path) -> None:
    cache, entry = Cache(tmp_path), tmp_path / "images" / OWN.image
    with pytest.raises(BadRequestError, match="FROM app: its image is no longer in the cache") as refused:
        image_of(OWN, cache)
    assert (refused.value.hint, refused.value.field) == ("build app again", "dockerfile")
    entry.mkdir(parents=True)
    (entry / DISK).write_bytes(bytes(1024**2))
    write_manifest(entry, {"git": "1"}, {})
    image = image_of(OWN, cache)
    assert (image.key, image.disk_mb, image.path.parent) == (OWN.image, 1, entry)


def an_image(folder: Path) -> Layout:
    layout = Layout(folder)
    layout.image("1", [layer(member("a", b"1"))], {"Env": ["FROM_IMAGE=yes"], "User": "app", "Cmd": ["run"]})
    return layout


async def of_image(shipped: Mapping[str, Path], folder: Path, text: str, *, trusted: bool = True) -> Described:
    """Described for the operator, with the layout ``images`` in the recipe's folder."""
    if not folder.exists():
        folder.mkdir()
        an_image(folder / "images")
    (folder / "Dockerfile").write_text(text)
    (folder / "template.toml").write_text("disk_mb = 512\n")
    recipe = load_template(folder, trusted=trusted)
    steps = Steps(Silent())
    importer = Importer(cast(BuildHost, None), steps, (), trusted, folder)  # it fetches nothing here
    return await Describing(shipped, steps, Renewals(Cache(folder / "no-cache")), importer=importer).recipe(
        recipe, ("mine",)
    )


async def test_an_image_is_built_on_with_its_settings(shipped: Mapping[str, Path], tmp_path: Path) -> None:
    as_it_is = await of_image(shipped, tmp_path / "mine", "FROM oci:images:1\nENV MORE=1\n")
    assert as_it_is.imported and as_it_is.foreign and as_it_is.disk_mb == 512
    assert as_it_is.config.env["FROM_IMAGE"] == "yes" and as_it_is.config.env["MORE"] == "1"
    assert as_it_is.config.user == "app" and "@sha256:" in as_it_is.base
    longer = await of_image(shipped, tmp_path / "mine", "FROM oci:images:1 AS a\nRUN x\nFROM a\nRUN y\n")
    assert longer.made and longer.foreign and longer.made.below.made and longer.made.below.made.below.imported
    assert longer.made.wanted.config.cmd == ("run",)
    mixed = await of_image(shipped, tmp_path / "mine", "FROM oci:images:1 AS a\nFROM plain\nCOPY --from=a /a /a\n")
    assert mixed.made and not mixed.foreign and mixed.made.sources[0].imported


async def test_files_are_copied_from_an_image_without_a_stage(shipped: Mapping[str, Path], tmp_path: Path) -> None:
    root = await of_image(shipped, tmp_path / "mine", "FROM plain\nRUN x\nCOPY --from=oci:images:1 /a /a\n")
    assert root.made and not root.foreign and root.base == "plain"
    assert root.made.sources[0].imported and "FROM_IMAGE" not in root.config.env
    staged = await of_image(
        shipped, tmp_path / "mine", "FROM oci:images:1 AS a\nFROM plain\nRUN x\nCOPY --from=a /a /a\n"
    )
    assert staged.made and staged.made.wanted.key == root.made.wanted.key, "the same files, the same layer"


async def test_an_image_has_other_keys_when_it_has_changed(shipped: Mapping[str, Path], tmp_path: Path) -> None:
    text = "FROM oci:images:1\nRUN x\n"
    old = await of_image(shipped, tmp_path / "mine", text)
    again = await of_image(shipped, tmp_path / "mine", text)
    (tmp_path / "mine" / "images" / "index.json").unlink()
    Layout(tmp_path / "mine" / "images").image("1", [layer(member("a", b"2"))])
    new = await of_image(shipped, tmp_path / "mine", text)
    assert old.key == again.key != new.key


async def test_templates_and_debian_come_before_images(shipped: Mapping[str, Path], tmp_path: Path) -> None:
    for name in ("tools", "debian:bookworm", "debian"):
        assert not (await of_image(shipped, tmp_path / "mine", f"FROM {name}\nRUN x\n")).foreign


async def test_layouts_are_the_operators(shipped: Mapping[str, Path], tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="no layouts of the server's disk"):
        await of_image(shipped, tmp_path / "mine", "FROM oci:images:1\n", trusted=False)
    with pytest.raises(BuildError, match="0 images"):
        await of_image(shipped, tmp_path / "mine", "FROM oci:images:2\n")
    with pytest.raises(BuildError, match=r"index\.json"):
        await of_image(shipped, tmp_path / "mine", "FROM oci:nowhere:1\n")


async def test_a_name_that_nothing_can_have(shipped: Mapping[str, Path], tmp_path: Path) -> None:
    with pytest.raises(BadRequestError, match="line 1: FROM 'Tools' is not the name of an image") as refused:
        await of_image(shipped, tmp_path / "mine", "FROM Tools\n")
    assert refused.value.field == "dockerfile"
