"""The way from a machine to the master without any network: a tunnel to a port of the sandbox, joined to the master."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from autobahn.twisted.websocket import WebSocketClientFactory, WebSocketClientProtocol, connectWS
from twisted.internet import protocol, ssl
from twisted.python import log

_MESSAGE = 1 << 20
"""Bytes of the largest message that is taken; the server's have 256 KiB."""


class _Machine(WebSocketClientProtocol):
    """The machine's end."""

    def onOpen(self) -> None:
        master = self.factory.master
        self.sendMessage(self.factory.token, isBinary=True)
        master.machine = self
        self.transport.registerProducer(master.transport, True)
        master.transport.registerProducer(self.transport, True)
        master.transport.resumeProducing()

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        if isBinary:
            self.factory.master.transport.write(payload)
        else:
            self.sendClose()  # the machine's end of data: neither side of PB sends more after it

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:
        if code not in (None, 1000) and not self.factory.master.gone:
            log.msg(f"the tunnel of a machine has closed: {code} {reason}")
        self.factory.master.transport.loseConnection()


class Master(protocol.Protocol):
    """The master's end. Nothing is read from it until the machine's end is open."""

    machine: _Machine | None = None
    gone = False

    def __init__(self, url: str, api_key: str, token: str, ended: Callable[[], object]) -> None:
        """``ended`` is called when either end has closed."""
        self._factory = WebSocketClientFactory(url, headers={"Authorization": f"Bearer {api_key}"})
        self._factory.protocol, self._factory.master, self._factory.token = _Machine, self, token.encode()
        self._factory.setProtocolOptions(maxMessagePayloadSize=_MESSAGE, maxFramePayloadSize=_MESSAGE)
        self._factory.clientConnectionFailed = lambda _, reason: self._failed(reason)
        self._factory.noisy = False
        self._connector: Any = None
        self._ended = ended

    def connectionMade(self) -> None:
        self.transport.pauseProducing()
        # Twisted's default, with which the certificate and its name are verified: Autobahn's would take any.
        context = ssl.optionsForClientTLS(self._factory.host) if self._factory.isSecure else None
        self._connector = connectWS(self._factory, context)

    def dataReceived(self, data: bytes) -> None:
        if self.machine is not None:
            self.machine.sendMessage(data, isBinary=True)

    def connectionLost(self, reason: object = protocol.connectionDone) -> None:
        self.gone = True
        self._ended()
        if self._connector is not None:
            self._connector.disconnect()

    def close(self) -> None:
        """Close both ends."""
        if not self.gone and self.transport is not None:
            self.transport.loseConnection()

    def _failed(self, reason: Any) -> None:
        log.msg(f"no tunnel to a machine: {reason.getErrorMessage()}")
        self.transport.loseConnection()
