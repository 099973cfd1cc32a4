"""Bodies of requests: looked into as they pass, or read whole so that values can be put in."""

from __future__ import annotations

from dataclasses import dataclass

import h11

from pandastack.broker.coding import decode_whole, decoder_of
from pandastack.broker.mask import Scanner
from pandastack.broker.peer import Peer
from pandastack.broker.requests import JSON_LIMIT, BadRequest
from pandastack.broker.swap import Swapper
from pandastack.model.secrets import PLACEHOLDER, PLACEHOLDER_LENGTH


@dataclass(frozen=True, slots=True)
class Begun:
    """What has been read of a body: pieces of it as they came, with ``ended`` all of them; and ``whole``, decoded,
    unless it is too long."""

    pieces: tuple[bytes, ...] = ()
    ended: bool = False
    whole: bytes | None = None


class Inspector:
    """Looks for placeholders in a body that passes. Raises :class:`BadRequest` for a coding that is not known."""

    def __init__(self, swapper: Swapper, coding: str) -> None:
        self._swapper = swapper
        self._scanner = Scanner(PLACEHOLDER, PLACEHOLDER_LENGTH)
        try:
            self._decoder = decoder_of(coding)
        except ValueError as error:
            raise BadRequest(415, f"{error} in requests to a host with secrets") from error

    def feed(self, data: bytes) -> None:
        """Look at more of the body. Raises ``Refused``, or :class:`BadRequest` when it cannot be decoded."""
        try:
            for piece in [data] if self._decoder is None else self._decoder.feed(data):
                if found := self._scanner.feed(piece):
                    self._swapper.refuse(found, "body")
        except ValueError as error:
            raise BadRequest(400, str(error)) from error


async def begin_json(client: Peer, coding: str) -> Begun:
    """Read a JSON body, whole unless it is longer than :data:`JSON_LIMIT`. Raises :class:`BadRequest`."""
    pieces: list[bytes] = []
    size = 0
    while isinstance(event := await client.event(), h11.Data):
        pieces.append(bytes(event.data))
        size += len(event.data)
        if size > JSON_LIMIT:
            return Begun(tuple(pieces))
    if not isinstance(event, h11.EndOfMessage):
        raise BadRequest(400, "the request ended before its body")
    try:
        return Begun(tuple(pieces), True, decode_whole(b"".join(pieces), coding, JSON_LIMIT))
    except ValueError as error:
        raise BadRequest(400, str(error)) from error
