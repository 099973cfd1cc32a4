"""Install a template from its folder: build its root, bake it, add it to the templates that sandboxes start from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import anyio

from pandastack.config import cache_budget
from pandastack.disks.pool import Pool
from pandastack.engine.build.bake import BakeSpec, bake
from pandastack.engine.build.host import BuildHost
from pandastack.engine.build.progress import Steps, megabytes
from pandastack.engine.build.root import Root, build_root
from pandastack.engine.origins.catalog import Templates
from pandastack.engine.origins.origin import Origin
from pandastack.host import files
from pandastack.images.cache import content_key, file_sha256
from pandastack.images.prune import prune
from pandastack.images.stages import image_below
from pandastack.images.template import TemplateRecipe, load_template
from pandastack.model.network_rules import to_json
from pandastack.model.registries import RegistryCredential
from pandastack.model.template import Template
from pandastack.snapshots.manifest import Snapshot


async def install_template(
    host: BuildHost,
    pool: Pool,
    recipe: TemplateRecipe,
    *,
    anew: bool = False,
    credentials: Sequence[RegistryCredential] = (),
) -> Origin:
    """Build, bake and install ``recipe``; steps done before come from the cache, unless they are to
    be done ``anew``. ``credentials`` are for the registries of its images. A failure leaves nothing behind."""
    host = replace(host, owner=recipe.owner)
    with Steps(host.progress) as steps:
        templates = Templates(host.layout.templates, pool)
        root = await build_root(host, recipe, steps, templates.find, anew=anew, credentials=credentials)
        with host.cache.holding(root.image.path.parent):
            snapshot = await bake(host, _dough(recipe, root), steps)
            with host.cache.holding(snapshot.directory):
                steps.next(f"install {recipe.name}")
                template = _template(host, recipe, root, snapshot)
                installed = await anyio.to_thread.run_sync(templates.install, template, snapshot.directory)
                steps.note(megabytes(template.size_bytes))
    for each in templates.list():
        host.cache.find("images", each.template.image)  # a use: others may be built on it
    await prune(host.cache, cache_budget())
    return installed


def _dough(recipe: TemplateRecipe, root: Root) -> BakeSpec:
    settings = recipe.settings
    return BakeSpec(
        name=recipe.name,
        image=root.image,
        cpus=settings.cpu,
        memory_mb=settings.memory_mb,
        max_cpus=settings.max_cpu,
        min_memory_mb=settings.min_memory_mb,
        max_memory_mb=settings.max_memory_mb,
        services=settings.services,
        warm_up=settings.warm_up,
        volumes=settings.disks,
        nested=settings.nested,
        env={**root.config.env, **settings.env},
        own=settings.volumes,
        owner=recipe.owner,
    )


def _template(host: BuildHost, recipe: TemplateRecipe, root: Root, snapshot: Snapshot) -> Template:
    settings = recipe.settings
    shipped = host.recipes.get(recipe.name) == recipe.folder and not recipe.target
    return Template(
        name=recipe.name,
        description=settings.description,
        cpu=settings.cpu,
        memory_mb=settings.memory_mb,
        max_cpu=settings.max_cpu,
        min_memory_mb=settings.min_memory_mb,
        max_memory_mb=settings.max_memory_mb,
        disk_mb_per_second=settings.disk_mb_per_second,
        disk_operations_per_second=settings.disk_operations_per_second,
        disk_mb=root.image.disk_mb,
        tools=settings.tools,
        aliases=settings.aliases,
        category=settings.category,
        base=root.base,
        env={**root.config.env, **settings.env},
        version=snapshot.manifest.key,
        image=root.image.key,
        size_bytes=size_of(snapshot),
        built_at=snapshot.manifest.built_at,
        rehearse=settings.rehearse,
        services=settings.services,
        warm_up=settings.warm_up,
        foreign=root.foreign,
        recipe=recipe_digest(host.recipes, recipe.name) if shipped else "",
        network=None if settings.network is None else to_json(settings.network),
        previews=settings.previews,
        wake=settings.wake,
        owner=recipe.owner,
        config=asdict(root.config),
    )


def size_of(snapshot: Snapshot) -> int:
    """What a template takes on the disk."""
    return sum(map(files.allocated_bytes, (snapshot.base, snapshot.memory)))


def recipe_digest(recipes: Mapping[str, Path], name: str) -> str:
    """The hash of all files of a shipped recipe, and of those that it is built on."""
    found: dict[str, list[tuple[str, str]]] = {}
    while name in recipes and name not in found:
        folder = recipes[name]
        paths = sorted(each for each in folder.rglob("*") if each.is_file())
        found[name] = [(str(each.relative_to(folder)), file_sha256(each)) for each in paths]
        name = image_below(load_template(folder, trusted=True).dockerfile, "")
    return content_key("recipe", found)


def shipped_recipes() -> dict[str, Path]:
    """The folders of the templates that come with this package, by name, a template's base before it."""
    here = Path(__file__).resolve()
    candidates = (here.parents[2] / "shipped" / "templates", here.parents[4] / "templates")
    root = next((path for path in candidates if path.is_dir()), candidates[0])
    return {path.name: path for path in sorted(root.iterdir()) if (path / "Dockerfile").exists()}
