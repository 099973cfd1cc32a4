"""From a template's folder to a template that sandboxes can be created from: build its root, bake it, install it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from pandastack.disks.pool import Pool
from pandastack.engine.bake import Dough, bake
from pandastack.engine.build import Root, build_root
from pandastack.engine.progress import Steps, megabytes
from pandastack.engine.templates import Installed, Templates
from pandastack.engine.workshop import Workshop
from pandastack.errors import NotFoundError
from pandastack.host import files
from pandastack.images.template import TemplateRecipe
from pandastack.model.template import Template
from pandastack.snapshots.manifest import Snapshot


async def install_template(workshop: Workshop, pool: Pool, recipe: TemplateRecipe) -> Installed:
    """Build, bake and install ``recipe``; what was done before comes from the cache. A failure leaves nothing."""
    with Steps(workshop.progress) as steps:
        root = await build_root(workshop, recipe, steps)
        snapshot = await bake(workshop, _dough(recipe, root), steps)
        steps.next(f"install {recipe.name}")
        template = _template(recipe, root, snapshot)
        installed = Templates(workshop.layout.templates, pool).install(template, snapshot.directory, root.image.path)
        steps.note(megabytes(template.size_bytes))
    return installed


def _dough(recipe: TemplateRecipe, root: Root) -> Dough:
    settings = recipe.settings
    return Dough(
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
    )


def shipped_recipes() -> dict[str, Path]:
    """The folders of the templates that come with this package, by name, a template's base before it."""
    here = Path(__file__).resolve()
    candidates = (here.parents[1] / "shipped" / "templates", here.parents[3] / "templates")
    root = next((path for path in candidates if path.is_dir()), candidates[0])
    return {path.name: path for path in sorted(root.iterdir()) if (path / "Dockerfile").exists()}


def recipe_folders(names: Iterable[str], shipped: Mapping[str, Path]) -> list[Path]:
    """The folders that ``names`` mean: a folder's path or the name of a shipped template; all shipped ones for none."""
    folders = [Path(name) if _is_folder(name) else shipped.get(name) for name in names]
    for name, folder in zip(names, folders, strict=False):
        if folder is None:
            hint = f"a folder with a Dockerfile, or one of: {', '.join(shipped)}"
            raise NotFoundError(f"no template recipe {name!r}", hint=hint, field="folders")
    return [folder for folder in folders if folder] or list(shipped.values())


def _is_folder(name: str) -> bool:
    return (Path(name) / "Dockerfile").is_file()
