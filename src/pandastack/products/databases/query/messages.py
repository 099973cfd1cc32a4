"""Messages of PostgreSQL's protocol 3.0 with parameters: made, cut out of a stream, and read. Pure.

The server is in a guest: every length is checked before it is used. Format: "Message Formats" of its documentation.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from pandastack.errors import GuestError

MOST_MESSAGE = 4 * 1024 * 1024
"""Of one message, and so of one row."""
_VERSION = 196608
_HEAD = struct.Struct("!cI")
_MOST_COLUMNS = 1664  # PostgreSQL's own limit
_COUNT, _LENGTH = struct.Struct("!H"), struct.Struct("!i")
_COLUMN = struct.Struct("!IHIhih")


@dataclass(frozen=True, slots=True)
class Column:
    """A column of an answer: its name, and the number of its type."""

    name: str
    type: int


@dataclass(frozen=True, slots=True)
class Refusal:
    """What the server refuses: its code (SQLSTATE), its words, and where in the statement, in characters from 1 on."""

    code: str
    message: str
    detail: str | None = None
    hint: str | None = None
    position: int | None = None


def startup(settings: Mapping[str, str]) -> bytes:
    """The first message. ``settings`` has the user, the database and settings of the session."""
    body = b"".join(f"{name}\0{text}\0".encode() for name, text in settings.items()) + b"\0"
    return struct.pack("!II", len(body) + 8, _VERSION) + body


def simple(sql: str) -> bytes:
    """A query of ours, whose rows nobody reads."""
    return _message(b"Q", sql.encode() + b"\0")


def prepare(sql: str) -> bytes:
    """Parse a statement, and ask what its parameters are."""
    return _message(b"P", b"\0" + sql.encode() + b"\0\0\0") + _message(b"D", b"S\0")


def run(values: Sequence[bytes | None], most_rows: int) -> bytes:
    """Bind text to the parameters of the parsed statement, and carry it out until it has given ``most_rows``."""
    bound = b"".join(_LENGTH.pack(-1) if each is None else _LENGTH.pack(len(each)) + each for each in values)
    portal = _message(b"B", b"\0\0\0\0" + _COUNT.pack(len(values)) + bound + b"\0\0")
    return portal + _message(b"D", b"P\0") + _message(b"E", b"\0" + _LENGTH.pack(most_rows))


FLUSH, SYNC, TERMINATE = (kind + b"\0\0\0\4" for kind in (b"H", b"S", b"X"))


class Cutter:
    """Cuts a stream into messages."""

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[bytes, bytes]]:
        """The messages that are complete with ``data``: kind and body. Raises :class:`GuestError`."""
        self._data += data
        place, end = 0, len(self._data)
        try:
            while end - place >= _HEAD.size:
                kind, length = _HEAD.unpack_from(self._data, place)
                if not 4 <= length <= MOST_MESSAGE:
                    raise malformed()
                if end - place <= length:
                    break
                body = bytes(memoryview(self._data)[place + 5 : place + length + 1])
                place += length + 1
                yield kind, body
        finally:
            del self._data[:place]


def columns_of(body: bytes) -> list[Column]:
    """A RowDescription."""
    columns, place = list[Column](), 2
    for _ in range(_count(body)):
        end = body.find(b"\0", place)
        if end < 0 or len(body) < end + 1 + _COLUMN.size:
            raise malformed()
        type_number = _COLUMN.unpack_from(body, end + 1)[2]
        columns.append(Column(body[place:end].decode(errors="replace"), type_number))
        place = end + 1 + _COLUMN.size
    return columns


def parameters_of(body: bytes) -> list[int]:
    """A ParameterDescription: the numbers of the types."""
    (count,) = _COUNT.unpack_from(body) if len(body) >= 2 else (0,)
    if len(body) != 2 + 4 * count:
        raise malformed()
    return list(struct.unpack_from(f"!{count}I", body, 2))


def values_of(body: bytes, count: int) -> list[str | None]:
    """A DataRow of ``count`` columns."""
    if _count(body) != count:
        raise malformed()
    values, place, end, length_at = list[str | None](), 2, len(body), _LENGTH.unpack_from
    for _ in range(count):
        if place + 4 > end:
            raise malformed()
        (length,) = length_at(body, place)
        place += 4
        if length < 0:
            values.append(None)
            continue
        after = place + length
        if after > end:
            raise malformed()
        values.append(body[place:after].decode(errors="replace"))
        place = after
    return values


def affected_of(tag: bytes) -> int | None:
    """The rows that a CommandComplete says were affected; None for statements that affect none."""
    last = tag.rstrip(b"\0").rpartition(b" ")[2]
    return int(last) if last.isdigit() and len(last) <= 19 else None


def ends_transaction(tag: bytes) -> bool:
    """Whether the statement with this tag may have ended the transaction that it ran in."""
    return tag.rstrip(b"\0") in (b"COMMIT", b"ROLLBACK", b"BEGIN", b"START TRANSACTION", b"PREPARE TRANSACTION")


def refusal_of(body: bytes) -> Refusal:
    """An ErrorResponse."""
    fields = {each[:1]: each[1:].decode(errors="replace") for each in body.split(b"\0", 64)[:64] if each}
    place = fields.get(b"P", "")
    return Refusal(
        code=fields.get(b"C", "")[:5],
        message=fields.get(b"M", "")[:2000],
        detail=fields.get(b"D", "")[:2000] or None,
        hint=fields.get(b"H", "")[:500] or None,
        position=int(place) if place.isascii() and place.isdigit() and len(place) < 10 else None,
    )


def malformed() -> GuestError:
    """The error for what no server of PostgreSQL sends."""
    return GuestError("the database server's answer is malformed")


def _message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!I", len(body) + 4) + body


def _count(body: bytes) -> int:
    if len(body) < 2:
        raise malformed()
    (count,) = _COUNT.unpack_from(body)
    if count > _MOST_COLUMNS:
        raise malformed()
    return int(count)
