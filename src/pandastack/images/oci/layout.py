"""Layouts of images on the disk, and disks with one image in them for the machine that unpacks it.

Other programs and other people have written these folders: no link is followed, every file is bounded, and what comes
out are files whose names are hashes. Source: OCI image layout specification 1.0.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from pandastack.errors import BuildError
from pandastack.images.oci.documents import DOCUMENT_MAX, Descriptor, read_descriptor, read_document, take
from pandastack.images.oci.manifest import INDEXES, ImageManifest, read_manifest
from pandastack.images.oci.skopeo import TAG

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_NAME = "org.opencontainers.image.ref.name"
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CHUNK = 1024 * 1024


class Layout:
    """The layout in a folder. ``what`` is what errors call it."""

    def __init__(self, folder: Path, what: str) -> None:
        self.folder, self.what = folder, what

    def find(self, tag: str, platform: str) -> tuple[Descriptor, ImageManifest]:
        """The image with this tag for a platform; without a tag the only one. Raises :class:`BuildError`."""
        with self._open("index.json") as file:
            index = read_document(file.read(DOCUMENT_MAX + 1), f"the index of {self.what}")
        listed = take(index, "manifests", list, self.what)
        if tag:
            listed = [each for each in listed if isinstance(each, dict) and _tag(each, self.what) == tag]
        if len(listed) != 1:
            raise BuildError(f"{self.what}: {len(listed)} images, where one is wanted", hint="oci:FOLDER:TAG names one")
        descriptor = read_descriptor(listed[0], self.what)
        found = read_manifest(self.document(descriptor), platform, self.what)
        if isinstance(found, Descriptor):
            descriptor, found = found, read_manifest(self.document(found), platform, self.what)
        if isinstance(found, Descriptor):
            raise BuildError(f"{self.what}: an index of indexes")
        return descriptor, found

    def document(self, descriptor: Descriptor) -> bytes:
        """A manifest, an index or a configuration, checked against its hash."""
        with self.blob(descriptor) as file:
            data = file.read(DOCUMENT_MAX + 1)
        if hashlib.sha256(data).hexdigest() != descriptor.hexadecimal:
            raise BuildError(f"{self.what}: {descriptor.digest} is not the file of that name")
        return data

    @contextmanager
    def blob(self, descriptor: Descriptor) -> Iterator[IO[bytes]]:
        with self._open("blobs", "sha256", descriptor.hexadecimal) as file:
            yield file

    @contextmanager
    def _open(self, *names: str) -> Iterator[IO[bytes]]:
        *folders, name = names
        try:
            here = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            for each in folders:
                try:
                    below = os.open(each, _FOLDER, dir_fd=here)
                finally:
                    os.close(here)
                here = below
            try:
                fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=here)
            finally:
                os.close(here)
        except OSError as error:
            raise BuildError(f"{self.what}: {'/'.join(names)}: {error.strerror}") from error
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise BuildError(f"{self.what}: {'/'.join(names)} is not a file")
        with os.fdopen(fd, "rb") as file:
            yield file


def _tag(table: dict[str, object], what: str) -> str:
    return str(take(take(table, "annotations", dict, what), _NAME, str, what))


def gather(layout: Layout, descriptor: Descriptor, manifest: ImageManifest, into: Path) -> int:
    """Make a layout of exactly one image in the empty folder ``into``. Returns the bytes of its files. Blocking.

    Each file is compared with its hash on the way. Raises :class:`BuildError`.
    """
    if descriptor.media_type in INDEXES:
        raise BuildError(f"{layout.what}: an index is not an image")
    blobs = into / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    total = 0
    for each in {each.digest: each for each in (descriptor, manifest.config, *manifest.layers)}.values():
        total += _copy(layout, each, blobs / each.hexadecimal)
    entry = {"mediaType": OCI_MANIFEST, "digest": descriptor.digest, "size": descriptor.size}
    index = {"schemaVersion": 2, "manifests": [{**entry, "annotations": {_NAME: TAG}}]}
    (into / "index.json").write_text(json.dumps(index))
    (into / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    return total


def _copy(layout: Layout, descriptor: Descriptor, target: Path) -> int:
    hashed, size = hashlib.sha256(), 0
    with layout.blob(descriptor) as source, target.open("wb") as file:
        while chunk := source.read(_CHUNK):
            size += len(chunk)
            if size > descriptor.size:
                break
            hashed.update(chunk)
            file.write(chunk)
    if size != descriptor.size or hashed.hexdigest() != descriptor.hexadecimal:
        raise BuildError(f"{layout.what}: {descriptor.digest} is not the file that the manifest describes")
    return size


def layout_place(name: str, folder: Path) -> tuple[Path, str]:
    """Where the layout ``PATH[:TAG]`` is, from the recipe's folder, and which image of it is wanted."""
    path, _, tag = name.partition(":")
    return folder / path, tag
