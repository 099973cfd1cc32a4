"""Content codings of bodies that are looked into. Pure."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

PIECE = 64 * 1024
"""The most bytes that a decoder makes at once, so that a small body cannot fill the memory."""

_EITHER_HEADER = zlib.MAX_WBITS | 32
CODINGS = ("gzip", "x-gzip", "deflate")


class Decoder:
    """Decodes gzip and zlib, a piece at a time. Raises ``ValueError`` for damaged data."""

    def __init__(self) -> None:
        self._inflate = zlib.decompressobj(_EITHER_HEADER)
        self._started = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The decoded pieces of ``data``, each of at most :data:`PIECE` bytes."""
        try:
            while data:
                if self._inflate.eof:  # the next member of a gzip file
                    self._inflate = zlib.decompressobj(_EITHER_HEADER)
                piece = self._inflate.decompress(data, PIECE)
                if piece:
                    yield piece
                data = self._inflate.unconsumed_tail or self._inflate.unused_data
                if not self._inflate.eof and not piece and data:
                    raise ValueError("the body cannot be decoded")
        except zlib.error as error:
            raise ValueError("the body cannot be decoded") from error


def decoder_of(coding: str) -> Decoder | None:
    """The decoder of a ``Content-Encoding``; None for none. Raises ``ValueError`` for one that is not known."""
    name = coding.strip().lower()
    if name in ("", "identity"):
        return None
    if name in CODINGS:
        return Decoder()
    raise ValueError(f"content coding {name[:40]!r} is not supported")


def decode_whole(data: bytes, coding: str, limit: int) -> bytes | None:
    """A whole body, decoded; None when it is longer than ``limit``. Raises ``ValueError``."""
    decoder, decoded = decoder_of(coding), bytearray()
    for piece in [data] if decoder is None else decoder.feed(data):
        decoded += piece
        if len(decoded) > limit:
            return None
    return bytes(decoded)
