"""What jobs and refreshes print, as events."""

from __future__ import annotations

import codecs
from collections.abc import AsyncIterator

from pandastack.api.streams import StreamEvent
from pandastack.contract.records import STDERR, STDOUT, Output


async def events(output: AsyncIterator[Output]) -> AsyncIterator[StreamEvent]:
    """Events ``stdout`` and ``stderr`` with ``text``. Bytes that are not UTF-8 are replaced."""
    names = {STDOUT: "stdout", STDERR: "stderr"}
    decoders = {kind: codecs.getincrementaldecoder("utf-8")("replace") for kind in names}
    async for piece in output:
        if text := decoders[piece.kind].decode(piece.data):
            yield names[piece.kind], {"text": text}
    for kind, name in names.items():
        if text := decoders[kind].decode(b"", final=True):
            yield name, {"text": text}
