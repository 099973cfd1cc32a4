"""From a distribution's compressed ``vmlinuz`` to the plain kernel that a VMM boots, and from modules to
their load order."""

from __future__ import annotations

import lzma
import struct
import zlib
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from pandastack.errors import BuildError
from pandastack.host.processes.run import run

ELF_MAGIC = b"\x7fELF"
_ARM64_MAGIC = b"ARM\x64"
"""At offset 56 of an uncompressed arm64 Image (Documentation/arm64/booting.rst)."""

_BZIMAGE_MAGIC = b"HdrS"
"""At offset 0x202 of an x86 bzImage (Documentation/x86/boot.rst)."""

_TOOLS = {b"\x02\x21\x4c\x18": "lz4", b"\x28\xb5\x2f\xfd": "zstd"}
"""Compressions that Python does not know, by magic: LZ4's legacy frame and zstd."""


async def uncompress(image: bytes) -> bytes:
    """The plain kernel inside ``image``: ELF for x86-64, ``Image`` for arm64. Raises :class:`BuildError`."""
    if image[56:60] == _ARM64_MAGIC or image[:4] == ELF_MAGIC:
        return image
    kernel = await _decompress(x86_payload(image) if image[0x202:0x206] == _BZIMAGE_MAGIC else image)
    if kernel[:4] != ELF_MAGIC and kernel[56:60] != _ARM64_MAGIC:
        raise BuildError("the kernel package's vmlinuz holds neither an ELF kernel nor an arm64 Image")
    return kernel


def x86_payload(image: bytes) -> bytes:
    """The compressed kernel in a bzImage, found by the fields of its header (boot protocol 2.08 and
    newer)."""
    sectors = image[0x1F1] or 4
    version, offset, length = struct.unpack_from("<H", image, 0x206) + struct.unpack_from("<II", image, 0x248)
    start = (sectors + 1) * 512 + offset
    if version < 0x208 or not length or start + length > len(image):
        raise BuildError("the kernel's boot header names no payload")
    return image[start : start + length]


async def _decompress(payload: bytes) -> bytes:
    try:
        if payload[:2] == b"\x1f\x8b":
            return zlib.decompressobj(wbits=31).decompress(payload)
        if payload[:6] == b"\xfd7zXZ\x00":
            return lzma.LZMADecompressor().decompress(payload)
    except (zlib.error, lzma.LZMAError) as error:
        raise BuildError(f"the kernel's compressed payload is damaged: {error}") from error
    if tool := _TOOLS.get(payload[:4]):
        # The kernel's build appends the uncompressed size (u32) to formats that do not carry it themselves.
        return (await run([tool, "-d", "-c", "-q"], input=payload[:-4], timeout=60)).stdout
    raise BuildError(f"the kernel's payload has an unknown compression (magic {payload[:6].hex()})")


def module_name(path: str | Path) -> str:
    """``kernel/drivers/net/virtio_net.ko`` → ``virtio_net`` (the kernel treats ``-`` and ``_`` alike)."""
    return Path(path).name.partition(".ko")[0].replace("-", "_")


def module_depends(module: bytes) -> tuple[str, ...]:
    """The modules that a ``.ko`` file needs first: the ``depends`` line of its ``.modinfo``."""
    start = module.find(b"\0depends=")
    if start < 0:
        return ()
    text = module[start + 9 : module.index(b"\0", start + 9)].decode("ascii")
    return tuple(module_name(name) for name in text.split(",") if name)


def load_order(
    wanted: Sequence[str], builtin: Collection[str], depends: Callable[[str], Sequence[str]]
) -> tuple[str, ...]:
    """``wanted`` modules and all they need, each after what it needs; what is built into the kernel is left
    out."""
    order: dict[str, None] = {}

    def visit(name: str, path: tuple[str, ...]) -> None:
        if name in path:
            raise BuildError(f"kernel modules depend on each other in a circle: {' → '.join((*path, name))}")
        if name in builtin or name in order:
            return
        for need in depends(name):
            visit(need, (*path, name))
        order[name] = None

    for name in wanted:
        visit(name, ())
    return tuple(order)


def find_modules(directory: Path) -> Mapping[str, Path]:
    """All ``.ko`` files under an unpacked package's ``lib/modules/RELEASE``, by name."""
    return {module_name(path): path for path in directory.rglob("*.ko")}
