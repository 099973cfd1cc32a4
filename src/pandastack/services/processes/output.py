"""Output of commands: bounded when an answer holds all of it, decoded piece by piece when it is streamed."""

from __future__ import annotations

import codecs
import json
from bisect import bisect_right
from dataclasses import dataclass

from pandastack.contract.records import STDERR, STDOUT, Output
from pandastack.services.output_budget import Lease

_PIECE = 4096  # bytes that are decoded and encoded at once


@dataclass(frozen=True, slots=True)
class JsonText:
    """Text as the content of a JSON string, without its quotes: ``total`` bytes, of which ``dropped`` are missing."""

    content: bytes | bytearray
    total: int
    dropped: int

    def text(self) -> str:
        """The text itself."""
        return str(json.loads(b'"' + self.content + b'"'))


class OutputHead:
    """The beginning of a stream, encoded as JSON while it arrives: encoding a long answer at once takes too long.

    At most ``limit`` bytes are retained, which may be twice as long in JSON, and no more than ``lease`` has left. Text
    fits in that; of bytes that JSON writes as six characters each, fewer are retained.
    """

    def __init__(self, limit: int, lease: Lease) -> None:
        self._limit = limit
        self._json_room = 2 * limit
        self._lease = lease
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._content = bytearray()
        self._kept = 0
        self._total = 0
        self._full = False

    def add(self, data: bytes) -> None:
        """Add the stream's next piece."""
        self._total += len(data)
        for start in range(0, len(data), _PIECE):
            if self._full:
                return
            self._add(data[start : start + _PIECE])

    def finish(self) -> JsonText:
        """The retained output. If some is missing, it ends with a line that states how much."""
        unfinished = len(self._decoder.getstate()[0])
        if not self._full:
            self._content += json_content(self._decoder.decode(b"", final=True))
            return JsonText(self._content, self._total, 0)
        dropped = self._total - self._kept + unfinished
        note = f"\n[pandastack: output truncated, {dropped} of {self._total} bytes dropped]\n"
        self._content += json_content(note)
        return JsonText(self._content, self._total, dropped)

    def _add(self, piece: bytes) -> None:
        before = self._decoder.getstate()

        def encoded(length: int) -> bytes:
            self._decoder.setstate(before)
            return json_content(self._decoder.decode(piece[:length]))

        length = min(len(piece), self._limit - self._kept)
        if len(content := encoded(length)) > self._json_room:
            length = bisect_right(range(length + 1), self._json_room, key=lambda size: len(encoded(size))) - 1
            content = encoded(length)
        if not self._lease.take(len(content)):
            length, content = 0, encoded(0)
        self._full = length < len(piece)
        self._kept += length
        self._json_room -= len(content)
        self._content += content


def json_content(text: str) -> bytes:
    """``text`` within the quotes of a JSON string, in UTF-8."""
    return json.dumps(text, ensure_ascii=False).encode()[1:-1]


class OutputText:
    """Decodes a command's streams piece by piece, without cutting characters."""

    def __init__(self) -> None:
        make = codecs.getincrementaldecoder("utf-8")
        self._decoders = {STDOUT: make(errors="replace"), STDERR: make(errors="replace")}

    def feed(self, output: Output) -> str:
        """The text that this piece completes; may be empty."""
        return self._decoders[output.kind].decode(output.data)

    def unfinished(self, kind: int) -> int:
        """The number of bytes held of an incomplete character."""
        return len(self._decoders[kind].getstate()[0])

    def skip(self, kind: int) -> str:
        """Note that bytes are missing here: an incomplete character stays incomplete."""
        text = self._decoders[kind].decode(b"", final=True)
        self._decoders[kind].reset()
        return text

    def rest(self) -> list[tuple[int, str]]:
        """The incomplete characters at the end: pairs of stream and text."""
        tails = [(kind, decoder.decode(b"", final=True)) for kind, decoder in self._decoders.items()]
        return [(kind, text) for kind, text in tails if text]
