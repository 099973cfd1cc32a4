"""Manifests: which image of an index is for a platform, and what an image consists of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pandastack.errors import BuildError
from pandastack.images.oci.documents import Descriptor, malformed, read_descriptor, read_document, take

MOST_LAYERS = 256
MOST_PLATFORMS = 1024

INDEXES = frozenset(
    ["application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json"]
)
MANIFESTS = frozenset(
    ["application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json"]
)
_CONFIGS = frozenset(["application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"])
_OCI, _DOCKER = "application/vnd.oci.image.layer.v1.tar", "application/vnd.docker.image.rootfs.diff.tar"
_LAYERS = frozenset([_OCI, f"{_OCI}+gzip", f"{_OCI}+zstd", _DOCKER, f"{_DOCKER}.gzip", f"{_DOCKER}.zstd"])

_USUAL = ("v1", "v8")
"""Variants that are the architecture itself: of amd64 and of arm64."""

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True, slots=True)
class ImageManifest:
    """One image: its configuration, and its layers from the lowest on."""

    config: Descriptor
    layers: tuple[Descriptor, ...]

    @property
    def size(self) -> int:
        """Bytes that it says its files have in the registry."""
        return self.config.size + sum(each.size for each in self.layers)


def platform_here(machine: str) -> str:
    """The platform of guests on a host with this architecture: ``linux/amd64``."""
    return f"linux/{_ARCHITECTURES[machine]}"


def read_manifest(data: bytes, platform: str, what: str) -> ImageManifest | Descriptor:
    """The image in ``data``, or where the one for ``platform`` is if ``data`` is an index.

    Raises :class:`BuildError`, which calls the document ``what``, for one that is malformed or could be read both ways,
    and for an index without that platform.
    """
    table = read_document(data, what)
    if table.get("schemaVersion") == 1:
        raise BuildError(
            f"{what} has Docker's manifest schema 1, which registries no longer accept", hint="push it anew"
        )
    if table.get("schemaVersion") != 2:
        raise malformed(what, "schemaVersion")
    media_type = take(table, "mediaType", str, what)
    index, image = "manifests" in table, "config" in table or "layers" in table
    if index == image or (media_type and media_type not in (INDEXES if index else MANIFESTS)):
        raise BuildError(
            f"{what} is neither an image nor an index of images", hint="artifacts of other kinds have no files"
        )
    return _chosen(table, platform, what) if index else _image(table, what)


def _image(table: dict[str, Any], what: str) -> ImageManifest:
    config = read_descriptor(table.get("config"), what)
    if config.media_type not in _CONFIGS:
        raise BuildError(f"{what} is not an image: its configuration is {config.media_type[:100]!r}")
    listed = take(table, "layers", list, what)
    if len(listed) > MOST_LAYERS:
        raise BuildError(f"{what} has more than {MOST_LAYERS} layers")
    layers = tuple(read_descriptor(each, what) for each in listed)
    for number, layer in enumerate(layers, start=1):
        if layer.media_type not in _LAYERS:
            raise BuildError(
                f"{what}: layer {number} is {layer.media_type[:100]!r}, which cannot be unpacked",
                hint="layers are tar archives, plain or with gzip or zstd, in the registry itself",
            )
    if not layers:
        raise BuildError(f"{what} has no layers")
    return ImageManifest(config, layers)


def _chosen(table: dict[str, Any], platform: str, what: str) -> Descriptor:
    listed = take(table, "manifests", list, what)
    if len(listed) > MOST_PLATFORMS:
        raise BuildError(f"{what} lists more than {MOST_PLATFORMS} images")
    there: dict[str, Descriptor] = {}
    for each in listed:
        descriptor = read_descriptor(each, what)
        if descriptor.media_type in MANIFESTS:
            there.setdefault(_platform(take(each, "platform", dict, what), what), descriptor)
    if platform in there:
        return there[platform]
    known = sorted(each for each in there if each and not each.startswith("unknown/"))
    raise BuildError(
        f"{what} has no image for {platform}",
        hint=f"there are: {', '.join(known)[:1000]}" if known else "the index is empty",
    )


def _platform(table: dict[str, Any], what: str) -> str:
    words = [take(table, name, str, what) for name in ("os", "architecture", "variant")]
    return "/".join(each[:32] for each in words if each and each not in _USUAL)
