"""What a client is told that names a database which does not exist: the same as with a wrong password. Pure.

PostgreSQL does the like for roles that do not exist: it goes through the exchange with a salt that is always the same
for a name, and then refuses (RFC 5802 and 7677; "Mock authentication" in PostgreSQL's sources).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets

from pandastack.gateway.postgres.messages import (
    SASL,
    SASL_CONTINUE,
    SCRAM,
    Frames,
    Malformed,
    authentication,
    error,
    wrong_password,
)

_MOST_BYTES = 1024
"""PostgreSQL's limit of a message of SASL."""
_ITERATIONS = 4096
_NONCE_BYTES, _SALT_BYTES = 18, 16
"""Sizes as PostgreSQL has them."""
_FIRST = re.compile(rb"[ny],,n=[^,\0]*,r=([\x21-\x2b\x2d-\x7e]*)(?:,[A-Za-z]=[^,\0]*)*")
"""What PostgreSQL takes as a client's first message."""
_NOTHING = b"\xff" * 4
"""The length of a first message that a client does not send along with its choice."""


class Decoy:
    """An exchange of SCRAM that always fails, and no sooner than a real one."""

    def __init__(self, secret: bytes, database: str, user: bytes) -> None:
        """``secret`` is the installation's: with it, a salt is always the same for a role of a database."""
        digest = hmac.digest(secret, database.encode() + b"\0" + user, hashlib.sha256)
        self._salt = base64.b64encode(digest[:_SALT_BYTES])
        self._user = user
        self._chosen = self._asked = False
        self._frames = Frames(_MOST_BYTES)
        self.over = False

    def begin(self) -> bytes:
        """What the server says first."""
        return authentication(SASL, SCRAM + b"\0\0")

    def feed(self, data: bytes) -> bytes:
        """What the client gets for these bytes; the last of it sets :attr:`over`."""
        said = b""
        try:
            for kind, body in self._frames.feed(data):
                if kind != b"p" or self._asked:
                    raise Malformed("no message of the exchange comes next")
                said += self._continued(body)
        except Malformed:
            self.over = True
            said += error(wrong_password(self._user))
        return said

    def _continued(self, body: bytes) -> bytes:
        first = body
        if not self._chosen:
            name, _, rest = body.partition(b"\0")
            size, first = rest[:4], rest[4:]
            if name != SCRAM or len(size) < 4:
                raise Malformed("another mechanism")
            self._chosen = True
            if size == _NOTHING and not first:
                return authentication(SASL_CONTINUE)
            if int.from_bytes(size) != len(first):
                raise Malformed("malformed length")
        if (found := _FIRST.fullmatch(first)) is None:
            raise Malformed("malformed first message")
        self._asked = True
        nonce = found[1] + base64.b64encode(secrets.token_bytes(_NONCE_BYTES))
        return authentication(SASL_CONTINUE, b"r=%b,s=%b,i=%d" % (nonce, self._salt, _ITERATIONS))
