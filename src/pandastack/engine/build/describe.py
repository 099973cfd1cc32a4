"""Descriptions of roots: what a recipe's stages and bases add to one another, known before anything is made."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from pandastack.engine.build.installed import FindInstalled, config_of
from pandastack.engine.build.oci import ImportedRoot, Importer
from pandastack.engine.build.progress import Steps
from pandastack.engine.build.renewals import Renewals
from pandastack.errors import BadRequestError, BuildError
from pandastack.images.actions import DirectoryAction, ImageConfig
from pandastack.images.apt import SUITE
from pandastack.images.cache import content_key
from pandastack.images.context import Context
from pandastack.images.dockerfile import Stage
from pandastack.images.packages.in_guest import instructions
from pandastack.images.packages.lock import Lock
from pandastack.images.packages.resolve import resolve
from pandastack.images.plan import BuildPlan, plan
from pandastack.images.stages import at, base_name, image_below, needed_stages
from pandastack.images.template import TemplateRecipe, load_template
from pandastack.images.tree import Tree, debian_tree
from pandastack.model.template import Template

_FORMAT = 1
"""Increment it when the same recipe makes another disk."""

_DEBIAN = "debian"


@dataclass(frozen=True)
class Made:
    """A root that a machine makes of the one ``below``; ``sources`` are the stages that it copies from."""

    name: str
    wanted: BuildPlan
    below: Described
    sources: Mapping[int, Described]
    disk_mb: int


@dataclass(frozen=True)
class Described:
    """The description of a root, from which everything that it needs can be made: one that the host can make by
    itself (``tree``), an image of a registry (``imported``), that of a template which is ``installed``, or one that a
    machine makes. ``base`` is the image that its recipe is built on; ``arguments`` are the build arguments that a
    stage built on it knows."""

    tree: Tree | None
    made: Made | None
    config: ImageConfig
    base: str
    arguments: Mapping[str, str] = field(default_factory=dict)
    installed: Template | None = None
    imported: ImportedRoot | None = None

    @property
    def foreign(self) -> bool:
        """Whether others have made its files from the ground up: nothing is known to be in it."""
        if self.installed:
            return self.installed.foreign
        return self.imported is not None or (self.made is not None and self.made.below.foreign)

    @property
    def key(self) -> str:
        """The key of the image."""
        if self.tree or self.imported:
            return (self.tree or self.imported).key  # type: ignore[union-attr]
        if self.installed:
            return self.installed.image
        assert self.made is not None
        return self.made.wanted.key

    @property
    def layer(self) -> str:
        """The key of the files alone."""
        return self.made.wanted.layer if self.made else self.key

    @property
    def disk_mb(self) -> int:
        if self.tree or self.imported:
            return (self.tree or self.imported).disk_mb  # type: ignore[union-attr]
        if self.installed:
            return self.installed.disk_mb
        assert self.made is not None
        return self.made.disk_mb


async def lock_packages(folder: Path, shipped: Mapping[str, Path]) -> Lock:
    """Resolve what the recipe in ``folder`` declares, on top of its bases. Raises :class:`BadRequestError`."""
    recipe = load_template(folder, trusted=True, with_lock=False)
    tree = debian_tree()
    for base in _chain(shipped, recipe)[:-1]:
        if base.lock:
            tree = tree.with_packages(base.lock)
    return await resolve(recipe.settings.packages, tree)


def _chain(shipped: Mapping[str, Path], recipe: TemplateRecipe) -> Sequence[TemplateRecipe]:
    """The recipe and all that it is built on, the lowest first. Raises :class:`BadRequestError` for an unknown base."""
    chain = [recipe]
    while parent := _parent(shipped, image_below(chain[0].dockerfile, chain[0].target)):
        _refuse_circle(parent.name, [each.name for each in chain])
        chain.insert(0, parent)
    return chain


def _refuse_circle(name: str, above: Collection[str]) -> None:
    if name in above:
        raise BadRequestError(f"FROM {name}: a template cannot be built from itself", field="dockerfile")


def _parent(shipped: Mapping[str, Path], name: str) -> TemplateRecipe | None:
    """The shipped template that FROM names, or ``None`` for Debian itself."""
    if name in shipped:
        return load_template(shipped[name], trusted=True)
    if not _is_debian(name):
        hint = f"FROM {_DEBIAN}:{SUITE}, or one of: {', '.join(sorted(shipped))}"
        raise BadRequestError(f"FROM {name}: no such base", hint=hint, field="dockerfile")
    return None


def _is_debian(name: str) -> bool:
    """Whether FROM means Debian as its mirrors have it."""
    return name in (_DEBIAN, f"{_DEBIAN}:{SUITE}")


class Describing:
    """From recipes to descriptions of their roots. Each image is described once.

    FROM names a template of the recipe's owner, a shipped one, or another of everybody's, in this order. ``importer``
    resolves what is neither that nor Debian; without one there is nothing else. ``machine`` is what commands find in
    the machines that run them.
    """

    def __init__(
        self,
        shipped: Mapping[str, Path],
        steps: Steps,
        renewals: Renewals,
        find: FindInstalled | None = None,
        machine: str = "",
        importer: Importer | None = None,
    ) -> None:
        self._shipped, self._steps = shipped, steps
        self._renewals, self._machine = renewals, machine
        self._find: FindInstalled = find or (lambda _name, _owner: None)
        self._importer = importer
        self._images: dict[str, Described] = {}

    async def recipe(self, recipe: TemplateRecipe, above: tuple[str, ...]) -> Described:
        """The root of the target of ``recipe``. ``above`` are the names of the templates that are built on it."""
        needed, context = needed_stages(recipe.dockerfile, recipe.target, recipe.given.arguments), recipe.context
        stages: dict[int, Described] = {}
        for index, base in needed.items():
            stage = recipe.dockerfile.stages[index]
            if base is not None:
                below = stages[base.index]
            else:
                with at(stage.line):
                    name = base_name(recipe.dockerfile, recipe.given.arguments, stage)
                    below = await self._image(name, recipe.owner, above, recipe.settings.disk_mb)
            target = index == max(needed)
            stages[index] = await self._stage(recipe, context, stage, below, stages, target=target)
        return stages[max(needed)]

    async def _image(self, name: str, owner: str, above: tuple[str, ...], disk_mb: int) -> Described:
        if name not in self._images:
            installed, base = self._installed(name, owner), name
            elsewhere = self._importer and not installed and name not in self._shipped and not _is_debian(name)
            parent = None if installed or elsewhere else _parent(self._shipped, name)
            if installed:
                _refuse_circle(name, above)
                described = Described(None, None, config_of(installed), name, installed=installed)
            elif elsewhere:
                assert self._importer is not None
                root = await self._resolved(self._importer, name, disk_mb)
                described = Described(None, None, root.image.config, name, imported=root)
                base = root.image.text
            elif parent is None:
                described = Described(debian_tree(), None, ImageConfig(), name)
            else:
                _refuse_circle(parent.name, above)
                below = Describing(self._shipped, self._steps, self._renewals.older(), machine=self._machine)
                described = await below.recipe(parent, (*above, parent.name))
            self._images[name] = replace(described, base=base, arguments={})
        return self._images[name]

    def _installed(self, name: str, owner: str) -> Template | None:
        """The installed template that FROM names. Shipped ones are described by their recipes."""
        found = self._find(name, owner) if owner else None
        if found is None and name not in self._shipped:
            found = self._find(name, "")
        return found.template if found else None

    async def _resolved(self, importer: Importer, name: str, disk_mb: int) -> ImportedRoot:
        try:
            return await importer.resolve(name, disk_mb)
        except BuildError as error:
            if "/" in name:
                raise
            templates = f"templates here: {', '.join(sorted(self._shipped))}"
            raise BuildError(error.message, hint="; ".join(filter(None, (error.hint, templates)))) from error

    async def _stage(
        self,
        recipe: TemplateRecipe,
        context: Context,
        stage: Stage,
        below: Described,
        stages: Mapping[int, Described],
        *,
        target: bool,
    ) -> Described:
        """What a stage makes of ``below``: a longer description if that is possible, else a new image. Declared
        packages belong to the target."""
        disk_mb = max(recipe.settings.disk_mb, below.disk_mb)
        if target:
            below, stage = await self._with_packages(recipe, stage, below, disk_mb)
        wanted = plan(
            recipe.dockerfile,
            context,
            recipe.given,
            parent_key=content_key("root", _FORMAT, below.key, disk_mb, *filter(None, [recipe.owner])),
            parent=below.config,
            stage=stage,
            inherited=below.arguments,
            sources={index: each.layer for index, each in stages.items()},
            machine=self._machine,
            renewed=self._renewals.key,
        )
        known = replace(below, config=wanted.config, arguments=wanted.arguments)
        directories = [action.path for action in wanted.actions if isinstance(action, DirectoryAction)]
        if below.tree and recipe.trusted and len(directories) == len(wanted.actions):
            return replace(known, tree=replace(below.tree.with_directories(directories), disk_mb=disk_mb))
        if not wanted.actions and disk_mb == below.disk_mb:
            return known
        name = recipe.name if target else f"stage {stage.text} of {recipe.name}"
        sources = {index: stages[index] for index in wanted.sources}
        made = Made(name, wanted, below, sources, disk_mb)
        return replace(known, tree=None, imported=None, made=made, installed=None)

    async def _with_packages(
        self, recipe: TemplateRecipe, stage: Stage, below: Described, disk_mb: int
    ) -> tuple[Described, Stage]:
        """Declared packages, in the description of what is below, or as the first instructions of the stage."""
        packages, tree = recipe.settings.packages, below.tree
        if packages and tree and recipe.trusted:
            tree = replace(tree.with_packages(await _locked(recipe, tree, self._steps)), disk_mb=disk_mb)
            return replace(below, tree=tree), stage
        added = instructions(packages, recipe.lock, below.config.user) if packages else ()
        return below, replace(stage, steps=(*added, *stage.steps))


async def _locked(recipe: TemplateRecipe, tree: Tree, steps: Steps) -> Lock:
    """The recipe's lock, or what resolving its packages gives today."""
    if recipe.lock:
        return recipe.lock
    steps.next(f"resolve the packages of {recipe.name}")
    lock = await resolve(recipe.settings.packages, tree)
    steps.note("no packages.lock: `pandastack template lock` writes one")
    return lock
