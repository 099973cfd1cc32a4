"""Images in layouts, made byte by byte: equal arguments make equal digests, and hostile ones are easy to make."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CONFIG = "application/vnd.oci.image.config.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"

BUSYBOX = Path("/bin/busybox")


def member(name: str, data: bytes = b"", **values: Any) -> tuple[tarfile.TarInfo, bytes]:
    """A member of a layer: a file, or what ``type`` says. No name is refused."""
    info = tarfile.TarInfo(name)
    info.mode, info.size = 0o644, len(data)
    for key, value in values.items():
        setattr(info, key, value)
    return info, data


def folder(name: str, mode: int = 0o755) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, type=tarfile.DIRTYPE, mode=mode)


def link(name: str, target: str, *, hard: bool = False) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, type=tarfile.LNKTYPE if hard else tarfile.SYMTYPE, linkname=target, mode=0o777)


def layer(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for info, data in members:
            tar.addfile(info, io.BytesIO(data) if info.isfile() else None)
    return buffer.getvalue()


def sparse(name: str, size: int) -> bytes:
    """A layer of a few blocks with a file of ``size`` zero bytes: GNU tar's manual, "PAX Format, Version 0.1"."""
    info, _ = member(name)
    info.pax_headers = {"GNU.sparse.size": str(size), "GNU.sparse.numblocks": "1", "GNU.sparse.map": f"{size},0"}
    return info.tobuf(tarfile.PAX_FORMAT) + bytes(1024)


def busybox(*names: str) -> bytes:
    """A layer with busybox under these names, and two users."""
    links = [link(f"bin/{name}", "busybox") for name in names]
    users = b"root:x:0:0:root:/root:/bin/sh\napp:x:1234:1234::/srv:/bin/sh\n"
    files = [
        member("bin/busybox", BUSYBOX.read_bytes(), mode=0o755),
        member("etc/passwd", users),
        member("etc/group", b"root:x:0:\napp:x:1234:\n"),
    ]
    return layer(folder("bin"), folder("etc"), folder("srv"), *files, *links)


@dataclass
class Layout:
    """A layout in an empty folder."""

    place: Path
    entries: list[dict[str, Any]] = field(default_factory=list)

    def blob(self, data: bytes) -> dict[str, Any]:
        digest = hashlib.sha256(data).hexdigest()
        blobs = self.place / "blobs" / "sha256"
        blobs.mkdir(parents=True, exist_ok=True)
        (blobs / digest).write_bytes(data)
        return {"digest": f"sha256:{digest}", "size": len(data)}

    def image(
        self,
        tag: str,
        layers: Sequence[bytes],
        config: Mapping[str, Any] | None = None,
        *,
        diff_ids: Sequence[str] | None = None,
        **values: Any,
    ) -> dict[str, Any]:
        """An image of tar archives. ``values`` are fields of its configuration. Returns its descriptor."""
        tops = [{"mediaType": LAYER, **self.blob(gzip.compress(each, mtime=0))} for each in layers]
        true = [f"sha256:{hashlib.sha256(each).hexdigest()}" for each in layers]
        described = {
            "architecture": "amd64",
            "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": list(diff_ids or true)},
            "config": dict(config or {}),
            **values,
        }
        settings = {"mediaType": CONFIG, **self.blob(json.dumps(described).encode())}
        return self.manifest(tag, {"schemaVersion": 2, "mediaType": MANIFEST, "config": settings, "layers": tops})

    def manifest(self, tag: str, manifest: Mapping[str, Any], media_type: str = MANIFEST) -> dict[str, Any]:
        descriptor = {"mediaType": media_type, **self.blob(json.dumps(manifest).encode())}
        annotations = {"org.opencontainers.image.ref.name": tag}
        self.entries.append({**descriptor, "annotations": annotations})
        (self.place / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": self.entries}))
        (self.place / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
        return descriptor

    def index(self, tag: str, images: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
        """An index of images by their platforms, ``os/architecture``."""
        listed = []
        for platform, descriptor in images.items():
            system, architecture = platform.split("/")
            listed.append({**descriptor, "platform": {"os": system, "architecture": architecture}})
        return self.manifest(tag, {"schemaVersion": 2, "mediaType": INDEX, "manifests": listed}, INDEX)
