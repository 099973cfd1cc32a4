"""An image that is known exactly, before anything of it has been fetched but its manifest and its settings."""

from __future__ import annotations

from dataclasses import dataclass

from pandastack.images.actions import ImageConfig
from pandastack.images.cache import content_key
from pandastack.images.oci.documents import Descriptor
from pandastack.images.oci.manifest import ImageManifest

_FORMAT = 1
"""Increment it when the same image makes another disk."""


@dataclass(frozen=True)
class ResolvedImage:
    """``origin`` is where it is, a repository or a layout; ``digest`` what its name meant, ``descriptor`` the manifest
    that was chosen for the platform: the same, unless the name meant an index."""

    name: str
    origin: str
    digest: str
    descriptor: Descriptor
    manifest: ImageManifest
    config: ImageConfig

    @property
    def layout_key(self) -> str:
        """The key of its files. The origin is part of it: who has another registry serve a manifest that names layers
        from here gets nothing from the cache."""
        return content_key("oci", _FORMAT, self.origin, self.descriptor.digest)

    def disk_key(self, disk_mb: int) -> str:
        """The key of its files on a disk of so many MiB."""
        return content_key("oci disk", _FORMAT, self.layout_key, disk_mb)

    @property
    def text(self) -> str:
        """Its name with its digest."""
        return self.name if "@" in self.name else f"{self.name}@{self.digest}"
