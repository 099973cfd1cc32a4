"""The part of a session that the gateway reads: what a server sends until it is ready for the first query. Pure."""

from __future__ import annotations

from pandastack.gateway.postgres.messages import (
    AUTHENTICATION_OK,
    CANNOT_CONNECT_NOW,
    INVALID_AUTHORIZATION,
    SASL,
    SASL_CONTINUE,
    SASL_FINAL,
    SCRAM,
    Frames,
    Malformed,
    Refusal,
    authentication,
    error,
    error_code,
    mechanisms,
    message,
    parse_key_data,
    wrong_password,
)

_MOST_BYTES = 64 * 1024
_SHOWN = ("53", "57")
"""Classes of errors that say something about the server, not about the client: it has no room, or shuts down. All
others before the login look like a wrong password, since an id that is no database's answers with nothing else
(:mod:`pandastack.gateway.postgres.decoy`)."""
_READY, _PARAMETER, _KEY, _ERROR = b"Z", b"S", b"K", b"E"


class Login:
    """Reads what the server of a database sends, and says what the client gets of it."""

    def __init__(self, user: bytes, key_data: bytes) -> None:
        """``key_data``: the message that the client gets in place of the server's own cancel key."""
        self._user = user
        self._key_data = key_data
        self._frames = Frames(_MOST_BYTES)
        self.asked = False
        """Whether the server has answered anything that the client heard of."""
        self.authenticated = False
        self.ready = False
        """Whether the login is over, and everything after it passes unread."""
        self.failed = False
        """Whether the server has refused the client: it closes the connection."""
        self.starting = False
        """Whether the server has refused only because it starts up. The client has heard of nothing."""
        self.key: tuple[int, bytes] | None = None
        """The server's own process id and cancel key."""

    def feed(self, data: bytes) -> bytes:
        """What the client gets for these bytes. Raises :class:`Malformed`, and :class:`Refusal` for a server that
        wants another authentication than SCRAM."""
        said: list[bytes] = []
        for kind, body in self._frames.feed(data):
            said.append(self._after(kind, body) if self.authenticated else self._before(kind, body))
            self.asked = self.asked or bool(said[-1])
            if self.failed or self.starting:
                break
            if self.ready:
                said.append(self._frames.rest)
                break
        return b"".join(said)

    def _before(self, kind: bytes, body: bytes) -> bytes:
        if kind == b"R":
            return self._authentication(body)
        if kind == _ERROR:
            return self._error(body)
        if kind == b"N":
            return b""
        raise Malformed("unexpected message before the authentication")

    def _authentication(self, body: bytes) -> bytes:
        code = int.from_bytes(body[:4])
        if len(body) >= 4 and code == SASL:
            if SCRAM not in mechanisms(body[4:]):
                raise Refusal(INVALID_AUTHORIZATION, "the database's server does not offer SCRAM-SHA-256")
            # Without SCRAM-SHA-256-PLUS: it binds to the certificate of TLS, which is the gateway's.
            return authentication(SASL, SCRAM + b"\0\0")
        if len(body) < 4 or code not in (AUTHENTICATION_OK, SASL_CONTINUE, SASL_FINAL):
            raise Refusal(INVALID_AUTHORIZATION, "the database's server wants another authentication than SCRAM")
        self.authenticated = code == AUTHENTICATION_OK
        return message(b"R", body)

    def _error(self, body: bytes) -> bytes:
        code = error_code(body)
        if code == CANNOT_CONNECT_NOW and not self.asked:
            self.starting = True
            return b""
        self.failed = True
        return message(_ERROR, body) if code.startswith(_SHOWN) else error(wrong_password(self._user))

    def _after(self, kind: bytes, body: bytes) -> bytes:
        if kind == _KEY:
            if self.key is not None:
                raise Malformed("a second cancel key")
            self.key = parse_key_data(body)
            return self._key_data
        if kind not in (_READY, _PARAMETER, _ERROR, b"N"):
            raise Malformed("unexpected message before the first query")
        self.ready = kind == _READY
        self.failed = kind == _ERROR
        return message(kind, body)
