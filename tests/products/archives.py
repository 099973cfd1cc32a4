"""Archives and trees for the tests of builds."""

from __future__ import annotations

import io
import tarfile
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

from pandastack.products.builds.trees import Tree, normalise_now

MOST = 1 << 20


def member(
    name: str, kind: bytes = tarfile.REGTYPE, content: bytes = b"", **fields: object
) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.size, info.mode = kind, len(content), 0o644
    for key, value in fields.items():
        setattr(info, key, value)
    return info, content


def archive(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for info, content in members:
            tar.addfile(info, io.BytesIO(content))
    return made.getvalue()


def of_files(files: Mapping[str, bytes]) -> bytes:
    return archive(*(member(name, content=content) for name, content in files.items()))


def normal(folder: Path, content: bytes, name: str = "tree", time: int = 0) -> tuple[Tree, Path]:
    """The archive in normal form: its tree and its file."""
    given, made = folder / f"{name}.given", folder / f"{name}.tar"
    given.write_bytes(content)
    return normalise_now(given, made, time, MOST), made


async def in_pieces(content: bytes, size: int = 1000) -> AsyncIterator[bytes]:
    for at in range(0, len(content), size):
        yield content[at : at + size]
