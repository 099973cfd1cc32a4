"""The index of an archive: what its other members must be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pandastack.contract import codec
from pandastack.contract.codec import Constraint
from pandastack.contract.fields import Count
from pandastack.errors import BadRequestError
from pandastack.model.template import Template
from pandastack.snapshots.manifest import Manifest

FORMAT = 1
"""Increment it when archives are written differently."""

FILES = ("memory", "devices", "base.img", "root.qcow2", "modules.img", "kernel", "initramfs")
"""The files of a template's snapshot, apart from its manifest."""

INDEX, SUM = "index.json", "index.sha256"
INDEX_MAX = 16 * 1024 * 1024
FILE_MAX = 1024**4
CHUNK = 1024 * 1024

Digest = Annotated[
    str, Constraint(lambda text: len(text) == 64 and not set(text) - set("0123456789abcdef"), "be a SHA-256 in hex")
]


@dataclass(frozen=True, slots=True)
class PackedFile:
    """One file. ``ranges`` has start and end of each range that is in the archive, ``sha256`` is that of their bytes,
    one range after the other."""

    name: str
    size: Count
    sha256: Digest
    ranges: tuple[Count, ...]

    @property
    def pairs(self) -> list[tuple[int, int]]:
        return list(zip(self.ranges[::2], self.ranges[1::2], strict=True))

    @property
    def packed(self) -> int:
        """Its bytes in the archive."""
        return sum(end - start for start, end in self.pairs)


@dataclass(frozen=True, slots=True)
class Index:
    """What an archive holds, and which CPU it was made on."""

    format: int
    cpu_model: str
    cpu_features: tuple[str, ...]
    template: Template
    manifest: Manifest
    files: tuple[PackedFile, ...]


def damaged(reason: str) -> BadRequestError:
    """The error of an archive that is not as it was written."""
    return BadRequestError(f"not a usable template archive: {reason}", field="file", hint="export the template again")


def parse(text: bytes) -> Index:
    """Read an index strictly. Raises :class:`BadRequestError`."""
    try:
        index = codec.decode_request(Index, text)
    except (BadRequestError, ValueError) as error:
        raise damaged(f"its index is malformed: {error}") from error
    if index.format != FORMAT:
        raise damaged(f"it has format {index.format}, this release reads {FORMAT}")
    if [each.name for each in index.files] != list(FILES):
        raise damaged(f"it has other files than {', '.join(FILES)}")
    for each in index.files:
        places = each.ranges
        if len(places) % 2 or list(places) != sorted(set(places)) or max(places, default=0) > each.size:
            raise damaged(f"the ranges of {each.name} do not fit into it")
        if each.size > FILE_MAX:
            raise damaged(f"{each.name} is too large")
    return index
