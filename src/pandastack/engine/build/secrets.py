"""The secrets of one build: what is masked in its log, and whether a layer has one of them.

Pure but for reading the layer. Every search is for whole byte strings, so that its time is bounded whatever a recipe
prints or writes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pandastack.errors import BuildError
from pandastack.host import files

MASK = b"****"

SHORTEST_MASKED = 4
"""Bytes of a value, or of a line of it, that is masked: shorter ones are part of ordinary words."""

SHORTEST_SOUGHT = 16
"""Bytes of a value that is looked for in layers: shorter ones may be there by chance."""

_LINES = 64
"""How many lines of a value are masked wherever they are; further ones where they are all of a line."""

_PIECE = 8 * 1024 * 1024


class Mask:
    """Takes the values of secrets out of what a build prints."""

    def __init__(self, values: Mapping[str, bytes]) -> None:
        lines = [line.strip() for value in values.values() for line in value.splitlines()]
        self._lines = {line for line in lines if len(line) >= SHORTEST_MASKED}
        within = {line for value in values.values() for line in _long_lines(value)[:_LINES]}
        self._within = sorted(within, key=len, reverse=True)
        self.longest = max(map(len, self._lines), default=0)
        """Bytes of the longest that is masked."""

    def line(self, text: bytes) -> bytes:
        """A line, or the beginning of one, without values."""
        if text.strip() in self._lines:
            return MASK
        for each in self._within:
            if each in text:
                text = text.replace(each, MASK)
        return text


def _long_lines(value: bytes) -> list[bytes]:
    stripped = (line.strip() for line in value.splitlines())
    return [line for line in stripped if len(line) >= SHORTEST_MASKED]


NOTHING = Mask({})


def refuse_written(layer: Path, values: Mapping[str, bytes], what: str) -> None:
    """Raise :class:`BuildError` if a value is in the file ``layer``, be it in blocks that no file has any more. Blocks.

    A value is found where it is in one piece: in a file, that is unless it lies across two parts of a scattered file.
    """
    sought = {name: value.strip() for name, value in values.items() if len(value.strip()) >= SHORTEST_SOUGHT}
    if not sought:
        return
    overlap = max(map(len, sought.values())) - 1
    with layer.open("rb") as file:
        size = layer.stat().st_size
        for start, end in files.data_ranges(file.fileno(), size):
            before, place = b"", start
            while place < end:
                file.seek(place)
                piece = file.read(min(_PIECE, end - place))
                if not piece:
                    break
                place += len(piece)
                text = before + piece
                for name, value in sought.items():
                    if value in text:
                        raise BuildError(
                            f"{what} has written the secret {name} to the disk, where the layer would keep it",
                            hint="read it where it is mounted, or write it below /dev/shm or a tmpfs mount",
                        )
                before = text[-overlap:]
