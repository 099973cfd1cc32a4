"""Everything that the gateway listens at, opened while it may: it serves as a user who could open none of them."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from pandastack.gateway.options import Options

_BACKLOG = 512


@dataclass(frozen=True, slots=True)
class Listeners:
    """``inner``, ``leash`` and ``inward`` are Unix sockets, the others those of TCP ports; empty: no such door."""

    inner: socket.socket
    leash: socket.socket
    inward: tuple[socket.socket, ...]
    http: tuple[socket.socket, ...]
    ssh: tuple[socket.socket, ...]
    postgres: tuple[socket.socket, ...]

    def ports(self) -> dict[str, int]:
        """The port of each open door."""
        doors = {"http": self.http, "ssh": self.ssh, "postgres": self.postgres}
        return {name: sockets[0].getsockname()[1] for name, sockets in doors.items() if sockets}


@contextmanager
def open_listeners(options: Options) -> Iterator[Listeners]:
    """The sockets that ``options`` want, for the length of the block. Raises ``OSError`` when a port is taken."""
    with ExitStack() as stack:
        yield Listeners(
            inner=stack.enter_context(_unix(options.inner)),
            leash=stack.enter_context(_unix(options.leash)),
            inward=(stack.enter_context(_unix(Path(options.inward), mode=0o666)),) if options.inward else (),
            http=stack.enter_context(_tcp(options.host, options.http_port)),
            ssh=stack.enter_context(_tcp(options.host, options.ssh_port)),
            postgres=stack.enter_context(_tcp(options.host, options.postgres_port)),
        )


@contextmanager
def _unix(path: Path, mode: int = 0o600) -> Iterator[socket.socket]:
    """``mode`` is for those that may enter the directory: that of the door inward lets in one user more."""
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        path.chmod(mode)
        listener.listen(_BACKLOG)
        listener.setblocking(False)
        yield listener
    with suppress(OSError):  # the directory may be another user's, who removes it
        path.unlink(missing_ok=True)


@contextmanager
def _tcp(host: str, port: int | None) -> Iterator[tuple[socket.socket, ...]]:
    """Sockets at ``port``. The loopback is both addresses: browsers try either for ``*.localhost``."""
    with ExitStack() as stack:
        if port is None:
            yield ()
            return
        listeners = [stack.enter_context(_listen(host, port))]
        if host == "127.0.0.1":
            with suppress(OSError):  # the host may have no IPv6
                listeners.append(stack.enter_context(_listen("::1", listeners[0].getsockname()[1])))
        yield tuple(listeners)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind((host, port))
        listener.listen(_BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise OSError(f"cannot listen on {host}:{port}: {error.strerror}") from error
    return listener
