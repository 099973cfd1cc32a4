"""The worker program. Its text is sent into each machine, where Python has ``buildbot-worker``.

It reads JSON from its standard input, prints the port of the loopback that it listens at, and waits for a tunnel whose
first bytes are the token. Then it starts the worker, whose connection to the master is that tunnel. It ends with it.
"""

from __future__ import annotations

import hmac
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from buildbot_worker.bot import Worker
from twisted.internet import protocol, reactor
from twisted.protocols.portforward import Proxy, ProxyClient
from twisted.python import log

given: dict[str, Any] = json.load(sys.stdin)
TOKEN = given["token"].encode()
SOCKET = str(Path(tempfile.mkdtemp(prefix="buildbot-")) / "master")


class Tunnel(Proxy):
    """The connection from the host. Until it has shown the token it is nobody's."""

    shown = b""

    def dataReceived(self, data: bytes) -> None:
        if self.peer is not None:
            super().dataReceived(data)
            return
        self.shown += data
        if len(self.shown) < len(TOKEN):
            return
        if not self.factory.waiting or not hmac.compare_digest(self.shown[: len(TOKEN)], TOKEN):
            self.transport.abortConnection()
            return
        self.transport.pauseProducing()
        self.factory.use(self)

    def connectionLost(self, reason: object) -> None:
        super().connectionLost(reason)
        if self.factory.tunnel is self:
            reactor.callLater(0, reactor.stop)


class Tunnels(protocol.Factory):
    """Waits for the tunnel, and starts the worker with it. There is one in the life of the program."""

    protocol = Tunnel
    tunnel: Tunnel | None = None

    @property
    def waiting(self) -> bool:
        return self.tunnel is None

    def use(self, tunnel: Tunnel) -> None:
        self.tunnel = tunnel
        port.stopListening()
        reactor.listenUNIX(SOCKET, Master())
        Path(given["directory"]).mkdir(parents=True, exist_ok=True)
        worker = Worker(
            None,
            None,
            given["name"],
            given["password"],
            given["directory"],
            keepalive=600,
            connection_string=f"unix:{SOCKET}",
        )
        worker.startService()
        reactor.addSystemEventTrigger("before", "shutdown", worker.stopService)


class Joined(ProxyClient):
    """The worker's own connection, joined to the tunnel."""

    def connectionMade(self) -> None:
        self.transport.write(self.peer.shown[len(TOKEN) :])
        super().connectionMade()


class Master(protocol.Factory):
    """What the worker takes for the master. It connects once: a tunnel that broke is not replaced."""

    def buildProtocol(self, addr: object) -> ProxyClient | None:
        if tunnels.tunnel is None or tunnels.tunnel.peer is not None:
            return None
        joined = Joined()
        joined.setPeer(tunnels.tunnel)
        return joined


log.startLogging(sys.stderr, setStdout=False)
tunnels = Tunnels()
port = reactor.listenTCP(0, tunnels, interface="127.0.0.1")
print(port.getHost().port, flush=True)
reactor.run()
