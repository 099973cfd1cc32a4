"""Output of commands: bounded where an answer holds it whole, decoded piece by piece where it is streamed."""

from __future__ import annotations

import codecs

from pandastack.contract.records import STDERR, STDOUT, Output


class OutputHead:
    """The first ``limit`` bytes of a stream, and how many there were."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._data = bytearray()
        self.total = 0

    def add(self, data: bytes) -> None:
        """The stream's next piece."""
        self.total += len(data)
        self._data += data[: self._limit - len(self._data)]

    @property
    def dropped(self) -> int:
        """Bytes beyond the limit."""
        return self.total - len(self._data)

    def text(self) -> str:
        """The retained bytes as UTF-8. Ends with a line that says what is missing."""
        if not self.dropped:
            return self._data.decode(errors="replace")
        # The cut may go through a character: an unfinished one at the end counts as dropped.
        text = codecs.getincrementaldecoder("utf-8")(errors="replace").decode(bytes(self._data))
        return f"{text}\n[pandastack: output truncated, {self.dropped} of {self.total} bytes dropped]\n"


class OutputText:
    """Decodes a command's streams piece by piece, without cutting characters."""

    def __init__(self) -> None:
        make = codecs.getincrementaldecoder("utf-8")
        self._decoders = {STDOUT: make(errors="replace"), STDERR: make(errors="replace")}

    def feed(self, output: Output) -> str:
        """The text that this piece completes; may be empty."""
        return self._decoders[output.kind].decode(output.data)

    def unfinished(self, kind: int) -> int:
        """Bytes of a character that is still to be completed."""
        return len(self._decoders[kind].getstate()[0])

    def skip(self, kind: int) -> str:
        """Bytes are missing now: what was unfinished stays so."""
        text = self._decoders[kind].decode(b"", final=True)
        self._decoders[kind].reset()
        return text

    def rest(self) -> list[tuple[int, str]]:
        """What was left unfinished at the end: pairs of stream and text."""
        tails = [(kind, decoder.decode(b"", final=True)) for kind, decoder in self._decoders.items()]
        return [(kind, text) for kind, text in tails if text]
