"""Positions and files of PostgreSQL's write-ahead log (WAL), as its server names them. Pure."""

from __future__ import annotations

import re
from datetime import UTC, datetime

SEGMENT = 16 * 1024 * 1024
"""The size of a file of the log in our templates, as in every cluster that nobody has made otherwise."""

_PER_LOG = 2**32 // SEGMENT
_POSITION = re.compile("([0-9A-F]{1,8})/([0-9A-F]{1,8})")
_NAME = re.compile("[0-9A-F]{24}")
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC).timestamp()


def position_of(text: str) -> int:
    """The number of a position such as ``0/16B3748``. Raises :class:`ValueError`."""
    found = _POSITION.fullmatch(text)
    if found is None:
        raise ValueError(f"no position: {text[:40]!r}")
    return int(found[1], 16) << 32 | int(found[2], 16)


def text_of(position: int) -> str:
    """The inverse."""
    return f"{position >> 32:X}/{position & 0xFFFFFFFF:X}"


def segment_start(position: int) -> int:
    """Where the file begins that has this position."""
    return position - position % SEGMENT


def segment_name(timeline: int, position: int) -> str:
    """The name of the file that has this position."""
    number = position // SEGMENT
    return f"{timeline:08X}{number // _PER_LOG:08X}{number % _PER_LOG:08X}"


def segment_position(name: str) -> int:
    """Where the file of this name begins. Raises :class:`ValueError`."""
    if not is_segment(name):
        raise ValueError(f"no file of the log: {name[:40]!r}")
    return (int(name[8:16], 16) * _PER_LOG + int(name[16:], 16)) * SEGMENT


def is_segment(name: str) -> bool:
    """Whether this is the name of a file of the log."""
    return _NAME.fullmatch(name) is not None and int(name[16:], 16) < _PER_LOG


def seconds_of(microseconds: int) -> float:
    """The epoch seconds of a time of the server: it counts from the year 2000."""
    return _EPOCH + microseconds / 1e6
