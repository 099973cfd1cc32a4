"""Install a template from its folder: build its root, bake it, add it to the templates that sandboxes start from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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
from pandastack.errors import NotFoundError
from pandastack.host import files
from pandastack.images.prune import prune
from pandastack.images.template import TemplateRecipe
from pandastack.model.template import Template
from pandastack.snapshots.manifest import Snapshot


async def install_template(host: BuildHost, pool: Pool, recipe: TemplateRecipe) -> Origin:
    """Build, bake and install ``recipe``; steps done before come from the cache. A failure leaves nothing behind."""
    with Steps(host.progress) as steps:
        root = await build_root(host, recipe, steps)
        snapshot = await bake(host, _dough(recipe, root), steps)
        steps.next(f"install {recipe.name}")
        template = _template(recipe, root, snapshot)
        install = Templates(host.layout.templates, pool).install
        installed = await anyio.to_thread.run_sync(install, template, snapshot.directory, root.image.path)
        steps.note(megabytes(template.size_bytes))
    await prune(host.cache, cache_budget())
    return installed


def _dough(recipe: TemplateRecipe, root: Root) -> BakeSpec:
    settings = recipe.settings
    return BakeSpec(
        name=recipe.name,
        image=root.image.path,
        image_key=root.image.key,
        cpus=settings.cpu,
        memory_mb=settings.memory_mb,
        disk_mb=settings.disk_mb,
        warm_up=settings.warm_up,
        env={**root.config.env, **settings.env},
    )


def _template(recipe: TemplateRecipe, root: Root, snapshot: Snapshot) -> Template:
    settings = recipe.settings
    return Template(
        name=recipe.name,
        description=settings.description,
        cpu=settings.cpu,
        memory_mb=settings.memory_mb,
        disk_mb=settings.disk_mb,
        tools=settings.tools,
        aliases=settings.aliases,
        category=settings.category,
        base=root.base,
        env={**root.config.env, **settings.env},
        version=snapshot.manifest.key,
        image=root.image.key,
        size_bytes=root.image.size_bytes + files.allocated_bytes(snapshot.memory),
        built_at=snapshot.manifest.built_at,
        rehearse=settings.rehearse,
    )


def shipped_recipes() -> dict[str, Path]:
    """The folders of the templates that come with this package, by name, a template's base before it."""
    here = Path(__file__).resolve()
    candidates = (here.parents[2] / "shipped" / "templates", here.parents[4] / "templates")
    root = next((path for path in candidates if path.is_dir()), candidates[0])
    return {path.name: path for path in sorted(root.iterdir()) if (path / "Dockerfile").exists()}


def recipe_folders(names: Iterable[str], shipped: Mapping[str, Path]) -> list[Path]:
    """The folder for each of ``names``: a path or the name of a shipped template. Without names, all shipped ones."""
    folders = [Path(name) if _is_folder(name) else shipped.get(name) for name in names]
    for name, folder in zip(names, folders, strict=False):
        if folder is None:
            hint = f"a folder with a Dockerfile, or one of: {', '.join(shipped)}"
            raise NotFoundError(f"no template recipe {name!r}", hint=hint, field="folders")
    return [folder for folder in folders if folder] or list(shipped.values())


def _is_folder(name: str) -> bool:
    return (Path(name) / "Dockerfile").is_file()
