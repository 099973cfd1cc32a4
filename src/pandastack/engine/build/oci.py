"""Images of registries and layouts as roots: resolved first, because plans and keys depend on what a name means today;
fetched and unpacked when they are needed and not in the cache.

Layers are unpacked in a machine of their own (``images/oci/unpack.py``). The host makes the disks, an empty one and one
with files that are named by hashes, and never reads what the machine has written.
"""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import anyio

from pandastack.engine.build.boot import Booted, boot, run_in_guest
from pandastack.engine.build.fetching import Registries, Skopeo
from pandastack.engine.build.host import BuildHost
from pandastack.engine.build.machine import lend_tools, read_packages
from pandastack.engine.build.progress import Steps, megabytes
from pandastack.engine.work import work_directory
from pandastack.errors import BuildError
from pandastack.guest import ExecRequest
from pandastack.host import facts, files
from pandastack.host.tasks import beside
from pandastack.images.ext4 import make_ext4
from pandastack.images.image import DISK, Image, load_image, write_manifest
from pandastack.images.lent_tools import lent
from pandastack.images.oci import unpack
from pandastack.images.oci.config import read_config
from pandastack.images.oci.layout import Layout, gather, layout_place
from pandastack.images.oci.manifest import ImageManifest, platform_here
from pandastack.images.oci.resolved import ResolvedImage
from pandastack.images.oci.skopeo import TAG
from pandastack.model.image_reference import LAYOUT_PREFIX, ImageReference, parse_reference
from pandastack.model.registries import RegistryCredential
from pandastack.snapshots.manifest import ROOT
from pandastack.vmm.plan import Disk

LAYOUT_IMAGE = "layout.img"
"""The disk with an image's files, as the cache has it."""

UNPACK_SECONDS = 3 * 3600.0
_MEMORY_MB, _CPUS = 1024, 2
_EMPTY_MB = 32

_MIB = 1024 * 1024


@dataclass(frozen=True)
class Importer:
    """What a build knows of images elsewhere: made for one build, with the credentials of its caller."""

    host: BuildHost
    steps: Steps
    credentials: Sequence[RegistryCredential] = field(default=(), repr=False)
    trusted: bool = False
    folder: Path = Path("/")
    """Where relative names of layouts begin: the recipe's folder."""

    async def resolve(self, name: str, disk_mb: int) -> ImportedRoot:
        """What ``name`` means now, for a disk of so many MiB. Nothing comes from the cache: who may not read the image
        learns that here. Raises :class:`BadRequestError` and :class:`BuildError`."""
        if name.startswith(LAYOUT_PREFIX):
            return ImportedRoot(self, None, await self._of_layout(name), disk_mb)
        reference = parse_reference(name, field="dockerfile", label="FROM")
        self.steps.next(f"resolve {reference.exact}")
        async with work_directory(self.host.scratch, "resolve") as folder:
            image = await self.skopeo(reference, folder).resolve(platform_here(facts.architecture()))
        self.steps.note(image.descriptor.digest)
        if image.manifest.size > disk_mb * _MIB:
            raise BuildError(
                f"FROM {name}: the image has {image.manifest.size / 1e6:.0f} MB, more than its disk of {disk_mb} MiB",
                hint="a larger disk_mb (size_mb of the API)",
            )
        return ImportedRoot(self, reference, image, disk_mb)

    def skopeo(self, reference: ImageReference, folder: Path) -> Skopeo:
        """skopeo with the credentials of this build, and ``folder`` for its files."""
        registries = Registries.of(self.host.network, self.credentials, trusted=self.trusted)
        return Skopeo(registries, reference, folder, self.host.layout.fetch_uid if facts.is_root() else None)

    async def _of_layout(self, name: str) -> ResolvedImage:
        what = f"FROM {name}"
        if not self.trusted:
            hint = "push the image to a registry; layouts are for templates that the operator builds without a server"
            raise BuildError(f"{what}: no layouts of the server's disk", hint=hint)
        place, tag = layout_place(name.removeprefix(LAYOUT_PREFIX), self.folder)
        layout, platform = Layout(place, what), platform_here(facts.architecture())
        descriptor, manifest = await anyio.to_thread.run_sync(layout.find, tag, platform)
        config = await anyio.to_thread.run_sync(layout.document, manifest.config)
        settings = read_config(config, len(manifest.layers), platform, what)
        return ResolvedImage(name, "a layout", descriptor.digest, descriptor, manifest, settings)


@dataclass(frozen=True)
class ImportedRoot:
    """A root that consists of the layers of an image, on a disk of ``disk_mb`` MiB. No ``reference``: of a layout."""

    importer: Importer
    reference: ImageReference | None
    image: ResolvedImage
    disk_mb: int

    @property
    def key(self) -> str:
        return self.image.disk_key(self.disk_mb)

    async def make(self) -> Image:
        """The image, from the cache or made now. Raises :class:`BuildError`."""
        cache = self.importer.host.cache
        if cache.find("images", self.key) is None:
            async with AsyncExitStack() as stack:
                source = await self._files(stack)
                entry = await stack.enter_async_context(cache.entry("images", self.key))
                if not entry.ready:
                    await self._unpack(source, entry.work)
                    entry.commit()
        return load_image(cache.root / "images" / self.key)

    async def _files(self, stack: AsyncExitStack) -> Path:
        """The disk with the image's files, from the cache or fetched now."""
        entry = await stack.enter_async_context(self.importer.host.cache.entry("oci", self.image.layout_key))
        if entry.ready:
            return entry.path / LAYOUT_IMAGE
        scratch = self.importer.host.scratch
        async with work_directory(scratch, "fetch") as folder, work_directory(scratch, "gather") as own:
            layout, (descriptor, manifest) = await self._layout(folder), (self.image.descriptor, self.image.manifest)
            if self.reference is not None:  # skopeo wrote a manifest of its own
                platform = platform_here(facts.architecture())
                descriptor, manifest = await anyio.to_thread.run_sync(layout.find, TAG, platform)
                self._compare(manifest)
            try:
                size = await anyio.to_thread.run_sync(gather, layout, descriptor, manifest, own)
            except OSError as error:
                raise files.map_error(error, own) from error
            await make_ext4(entry.work / LAYOUT_IMAGE, size // _MIB * 21 // 20 + 16, source=own)
        entry.commit()
        return entry.path / LAYOUT_IMAGE

    async def _layout(self, folder: Path) -> Layout:
        image, steps = self.image, self.importer.steps
        if self.reference is None:
            place, _ = layout_place(image.name.removeprefix(LAYOUT_PREFIX), self.importer.folder)
            return Layout(place, f"FROM {image.name}")
        steps.next(f"fetch {image.name}")
        count = len(image.manifest.layers)
        steps.progress.line(f"{count} layers, {megabytes(image.manifest.size)}")
        numbers = {each.hexadecimal: number for number, each in enumerate(image.manifest.layers, start=1)}

        def line(text: str) -> None:
            number = next((number for each, number in numbers.items() if each in text), None)
            steps.progress.line(f"layer {number} of {count}: {text}" if number else text)

        made = await self.importer.skopeo(self.reference, folder).copy(
            self.reference.at(image.descriptor.digest),
            image.manifest.size,
            recompress=any("zstd" in each.media_type for each in image.manifest.layers),
            report=steps.advance,
            line=line,
        )
        return Layout(made, f"FROM {image.name}")

    def _compare(self, fetched: ImageManifest) -> None:
        """What was fetched must be what was resolved. Layers that had to be compressed anew have other digests."""
        for wanted, found in zip(self.image.manifest.layers, fetched.layers, strict=False):
            if wanted.digest != found.digest and wanted.media_type.endswith("gzip"):
                raise BuildError(f"FROM {self.image.name}: another layer was fetched than {wanted.digest}")
        if len(fetched.layers) != len(self.image.manifest.layers):
            raise BuildError(f"FROM {self.image.name}: another image was fetched")

    async def _unpack(self, source: Path, into: Path) -> None:
        host, steps = self.importer.host, self.importer.steps
        steps.next(f"unpack {self.image.name}")
        async with work_directory(host.scratch, "unpack") as work:
            await make_ext4(into / DISK, self.disk_mb, key=self.key)
            await make_ext4(work / "empty.img", _EMPTY_MB)
            disks = (
                Disk(ROOT, work / "empty.img"),
                Disk(unpack.LAYOUT_DISK, source, readonly=True),
                Disk(unpack.IMAGE_DISK, into / DISK),
            )
            spec = host.machine("unpack", work, *disks, cpus=_CPUS, memory_mb=_MEMORY_MB)
            async with boot(host.driver, spec, work) as booted, _ended_when_full(booted, into):
                packages = await self._fill(booted)
        facts_of = {"base": self.image.name, "digest": self.image.digest, "config": asdict(self.image.config)}
        write_manifest(into, packages, {**facts_of, "manifest": self.image.descriptor.digest})
        steps.note(megabytes(files.allocated_bytes(into / DISK)))

    async def _fill(self, booted: Booted) -> dict[str, str]:
        await lend_tools(booted.channel, (unpack.UMOCI,))
        said = _Said()
        try:
            with anyio.fail_after(UNPACK_SECONDS):
                await run_in_guest(booted.channel, _bash(unpack.SCRIPT), "unpack", said)
        except TimeoutError as error:
            raise BuildError(f"FROM {self.image.name}: unpacking took longer than {UNPACK_SECONDS:g} s") from error
        except BuildError as error:
            reason, hint = unpack.reason_of(said.text, self.disk_mb)
            text = "\n  ".join([f"FROM {self.image.name}: {reason}", *said.text.splitlines()[-5:]])
            raise BuildError(text, hint=hint) from error
        packages = await read_packages(booted.channel, unpack.STATUS)
        await run_in_guest(booted.channel, _bash(unpack.FINISH), "unmount the image", self.importer.steps.progress)
        await booted.channel.sync()
        await booted.machine.pause()
        return dict(packages)


@asynccontextmanager
async def _ended_when_full(booted: Booted, directory: Path) -> AsyncIterator[None]:
    """End the block with :class:`StorageFullError` when the host's disk is full and the machine therefore stalls."""
    stalled = False

    async def watch() -> None:
        nonlocal stalled
        await booted.machine.wait_stalled()
        stalled = True
        tasks.cancel_scope.cancel()

    async with beside(watch) as tasks:
        yield
    if stalled:
        raise files.map_error(OSError(errno.ENOSPC, "full"), directory / DISK)


class _Said:
    """What a program of ours in the machine says: part of an error, and not of the log."""

    def __init__(self) -> None:
        self.text = ""

    def begin(self, title: str) -> None: ...

    def line(self, text: str) -> None:
        self.text = f"{self.text}{text}\n"[-8192:]

    def advance(self, done: int, total: int) -> None: ...

    def end(self, title: str, seconds: float, note: str) -> None: ...


def _bash(script: str) -> ExecRequest:
    return ExecRequest(argv=lent(("bash", "-c", script)))
