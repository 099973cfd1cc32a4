"""Templates that this host would bake differently today are baked again: in the background, one at a time.

A template keeps the disk that it was baked from, its sizes and its commands, so that needs neither recipe nor network.
Only shipped recipes that have changed are built as a whole. What runs keeps its version, and so do creates until the
new one is there.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import anyio
import structlog

from pandastack.contract.builds import BuildStatus
from pandastack.disks.pool import Pool
from pandastack.engine.build.bake import BakeSpec, bake, bake_key
from pandastack.engine.build.builds import Builds
from pandastack.engine.build.host import BuildHost
from pandastack.engine.build.install import install_template, recipe_digest, size_of
from pandastack.engine.build.log import BuildLog
from pandastack.engine.build.progress import Steps
from pandastack.engine.crash_points import crash_at
from pandastack.engine.origins.catalog import Templates
from pandastack.engine.origins.origin import Origin
from pandastack.errors import CapacityError, ConflictError, PandastackError
from pandastack.guest.keys import SUPPORTED
from pandastack.images.image import Image
from pandastack.images.template import load_template
from pandastack.model.accelerator import Accelerator
from pandastack.model.baked_volumes import BakedVolume
from pandastack.snapshots.manifest import Here
from pandastack.vmm.driver import Driver

INTERVAL_SECONDS = 3600.0
"""Time between two looks at all templates."""

RETRY_SECONDS = 15
"""When a create that has to wait for a bake may try again."""

log = structlog.get_logger(__name__)


@dataclass
class Due:
    """A version that is to be baked again for ``reason``: by ``build``, unless none has begun. ``error`` says why that
    failed; then nothing happens until the next start."""

    reason: str
    build: str = ""
    error: str = ""


class Rebakes:
    """Finds and renews the templates of one engine that are stale."""

    def __init__(self, builds: Builds, templates: Templates, pool: Pool, driver: Driver, *, enabled: bool) -> None:
        self._builds = builds
        self._templates = templates
        self._pool = pool
        self._driver = driver
        self._enabled = enabled
        self._due: dict[tuple[str, ...], Due] = {}
        self._begun = anyio.Event()

    def begin(self) -> None:
        """Start with the work: requests are answered by now."""
        self._begun.set()

    async def run(self) -> None:
        """Renew stale templates until cancelled."""
        await self._begun.wait()
        while self._enabled:
            try:
                await self._renew()
            except Exception as error:  # what goes wrong here must not end the engine
                log.warning("templates.not_examined", cause=repr(error))
            await anyio.sleep(INTERVAL_SECONDS)

    def staleness(self, origin: Origin) -> Due | None:
        """Why the template is to be baked again; None if it is as it would be today, as far as that is known."""
        due = self._due.get(_key(origin))
        obstacle = self._obstacle(origin)
        return due or (Due(obstacle) if obstacle else None)

    def explain(self, origin: Origin, refusal: ConflictError) -> PandastackError:
        """The error for a create that was refused: while its template is baked again, it may try again."""
        due = self._due.get(_key(origin))
        if due is None or due.error or not self._obstacle(origin):
            return refusal
        message = f"template {origin.name} is being baked again: {refusal.message}"
        hint = f"pandastack template list shows when it is done; the build is {due.build}" if due.build else None
        return CapacityError(message, hint=hint, retry_after=RETRY_SECONDS, field="template")

    def _obstacle(self, origin: Origin) -> str | None:
        accelerator = Accelerator(origin.snapshot.manifest.accelerator)
        return origin.snapshot.find_obstacle(Here(self._driver.identity, self._driver.cpus.get(accelerator), SUPPORTED))

    async def _renew(self) -> None:
        origins = self._templates.list()
        if not origins:
            return
        host = await self._builds.open_host(BuildLog())
        present = {_key(each) for each in origins}
        self._due = {key: due for key, due in self._due.items() if key in present}
        for origin in origins:
            if reason := await anyio.to_thread.run_sync(find_staleness, host, origin):
                self._due.setdefault(_key(origin), Due(reason))
        for origin in origins:
            due = self._due.get(_key(origin))
            if due and not due.error:
                await self._rebake(origin, due)

    async def _rebake(self, origin: Origin, due: Due) -> None:
        log.info("template.stale", template=origin.name, reason=due.reason)
        build_id = str(uuid.uuid4())
        work = partial(rebake, pool=self._pool, origin=origin)
        self._builds.start_work(build_id, origin.name, work, origin.template.owner)
        due.build = build_id
        async for _ in self._builds.read(build_id, follow=True):
            pass
        build = self._builds.get(build_id)
        if build.status is BuildStatus.DONE:
            del self._due[_key(origin)]
            log.info("template.rebaked", template=origin.name, version=build.version)
        else:
            due.error = build.error or build.status
            log.warning("template.not_rebaked", template=origin.name, error=due.error)


def _key(origin: Origin) -> tuple[str, ...]:
    return origin.template.owner, origin.name, origin.template.version


def find_staleness(host: BuildHost, origin: Origin) -> str:
    """Why a bake would make something else today; empty if it would not, or if that is not known. Blocking."""
    template = origin.template
    if _recipe_changed(host.recipes, origin):
        return "its recipe has changed"
    if template.warm_up is None:  # of a release that did not record it
        return ""
    if (template.baked_as or template.version) == bake_key(host, bake_spec(origin)):
        return ""
    return find_difference(origin, host) or "what a bake adds to the image has changed"


def find_difference(origin: Origin, host: BuildHost) -> str:
    """What of the host is another than at the bake; empty if nothing that the manifest has."""
    made = origin.snapshot.manifest
    pairs = {
        "VMM": (made.vmm, host.driver.identity),
        "accelerator": (made.accelerator, host.accelerator.value),
        "CPU": (made.cpu_flags, host.cpu_flags),
        "kernel": (made.kernel_version, host.kernel.version),
    }
    differing = (f"{what} {old}, this host has {new}" for what, (old, new) in pairs.items() if old != new)
    first = next(differing, "")
    return f"it was baked with {first}" if first else ""


def _recipe_changed(recipes: Mapping[str, Path], origin: Origin) -> bool:
    built_from = origin.template.recipe
    if not built_from or origin.template.owner or origin.name not in recipes:
        return False
    return recipe_digest(recipes, origin.name) != built_from


def bake_spec(origin: Origin) -> BakeSpec:
    """What an installed template was baked from: its base is the image, as it was before the bake."""
    template, made = origin.template, origin.snapshot.manifest
    return BakeSpec(
        name=template.name,
        image=Image(template.image, origin.snapshot.base, made.disk_mb, 0),
        cpus=made.cpus,
        memory_mb=made.memory_mb,
        max_cpus=made.max_cpus,
        min_memory_mb=made.min_memory_mb,
        max_memory_mb=made.max_memory_mb,
        services=template.services,
        warm_up=template.warm_up or (),
        env=template.env,
        volumes=made.volumes,
        nested=made.nested,
        own=tuple(
            BakedVolume(path, disk.path.stat().st_size >> 20)
            for path, disk in zip(made.mounts, origin.snapshot.disks[1:], strict=True)
        ),
        owner=template.owner,
    )


async def rebake(host: BuildHost, pool: Pool, origin: Origin) -> Origin:
    """Bake an installed template again, and install it unless another version has taken its place meanwhile."""
    if _recipe_changed(host.recipes, origin):
        return await install_template(host, pool, load_template(host.recipes[origin.name], trusted=True))
    templates = Templates(host.layout.templates, pool)
    with Steps(host.progress) as steps:
        snapshot = await bake(replace(host, owner=origin.template.owner), bake_spec(origin), steps)
        crash_at("rebaked")
        steps.next(f"install {origin.name}")
        template = replace(
            origin.template,
            version=snapshot.manifest.key,
            baked_as="",
            built_at=snapshot.manifest.built_at,
            size_bytes=size_of(snapshot),
        )
        if origin.template not in [each.template for each in templates.list()]:
            raise ConflictError(f"template {origin.name} was built anew, or removed, meanwhile")
        return await anyio.to_thread.run_sync(templates.install, template, snapshot.directory)
