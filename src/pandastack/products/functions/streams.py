"""The answer of a run on its way to a client: a head, then pieces, none faster than the client reads."""

from __future__ import annotations

import base64
import json
from typing import Any

import anyio

from pandastack.products.functions.lambda_url import Head

MOST_KEPT = 128 * 1024
"""The first bytes of a body, which the record of the run keeps."""


class ClientLeft(Exception):
    """The client reads no further."""


class Stream:
    """One answer. The run puts in what the client takes out; neither is ahead of the other by more than a piece."""

    def __init__(self) -> None:
        self._entry, self._exit = anyio.create_memory_object_stream[Head | bytes](0)
        self._head: Head | None = None
        self._kept = bytearray()
        self._size = 0

    async def put(self, item: Head | bytes) -> None:
        """Hand on the head or a piece; waits until it is taken. Raises :class:`ClientLeft`."""
        if isinstance(item, Head):
            self._head = item
        else:
            self._size += len(item)
            self._kept += item[: MOST_KEPT - len(self._kept)]
        try:
            await self._entry.send(item)
        except anyio.BrokenResourceError as error:
            raise ClientLeft from error

    async def take(self) -> Head | bytes | None:
        """What comes next; None at the end, whether the answer is whole or not."""
        try:
            return await self._exit.receive()
        except anyio.EndOfStream:
            return None

    def end(self) -> None:
        """Nothing more is put in."""
        self._entry.close()

    def leave(self) -> None:
        """Nothing more is taken."""
        self._exit.close()

    def result(self) -> str | None:
        """What the record keeps, as JSON: status, headers and the beginning of the body; None before the head."""
        if self._head is None:
            return None
        result: dict[str, Any] = {
            "statusCode": self._head.status,
            "headers": [list(each) for each in self._head.headers],
            "body": base64.b64encode(self._kept).decode(),
            "isBase64Encoded": True,
        }
        if self._size > len(self._kept):
            result["bodyBytes"] = self._size
        return json.dumps(result)
