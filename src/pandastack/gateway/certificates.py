"""The gateway's certificates. The server has the files and the authority, and is asked for what is to be shown."""

from __future__ import annotations

import ssl
from collections import OrderedDict
from dataclasses import dataclass

import anyio
import structlog

from pandastack.errors import PandastackError
from pandastack.gateway.control import Control
from pandastack.gateway.options import Options
from pandastack.host.tls import load_chain

EVERY = ""
"""The name of the certificate for all host names at once."""
_MOST = 1024
_RETRY_SECONDS = 1.0

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Shown:
    pem: str
    context: ssl.SSLContext
    until: float


class Certificates:
    """The TLS contexts for new connections. Inside TLS they speak ``protocol``, as RFC 7301 names it."""

    def __init__(self, options: Options, control: Control, protocol: str = "http/1.1") -> None:
        self._control = control
        self._protocol = protocol
        self._narrow = _narrow(options)
        self._shown: OrderedDict[str, _Shown] = OrderedDict()
        self._lock = anyio.Lock()

    @property
    def wants_name(self) -> bool:
        """Whether the certificate depends on the name that a client asks for."""
        return bool(self._narrow)

    async def context(self, name: str | None) -> ssl.SSLContext:
        """The context for a client that asks for ``name``, loaded again when the server has another certificate.

        While the new one is unusable, or the server away, the old one stays in use. Raises ``OSError``.
        """
        key = name if name is not None and name.partition(".")[2] in self._narrow else EVERY
        async with self._lock:
            shown = self._shown.get(key)
            if shown is None or shown.until < anyio.current_time():
                shown = self._shown[key] = await self._look(key, shown)
                if len(self._shown) > _MOST:
                    self._shown.popitem(last=False)
            self._shown.move_to_end(key)
            return shown.context

    async def _look(self, name: str, shown: _Shown | None) -> _Shown:
        try:
            pem, seconds = await self._control.certificate(name)
            until = anyio.current_time() + seconds
            return _Shown(pem, self._context(pem) if shown is None or shown.pem != pem else shown.context, until)
        except (PandastackError, OSError, ValueError) as error:
            if shown is None:
                raise OSError(f"the certificate cannot be used: {error}") from error
            log.warning("gateway.certificate_unusable", cause=repr(error))
            return _Shown(shown.pem, shown.context, anyio.current_time() + _RETRY_SECONDS)

    def _context(self, pem: str) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols([self._protocol])
        load_chain(context, pem)
        return context


def _narrow(options: Options) -> frozenset[str]:
    """The suffixes of one label, as ``localhost``: clients accept no wildcard below them. An operator's certificate is
    shown as it is."""
    hosts = {suffix.partition(":")[0] for suffix in options.suffixes} if options.certificate is None else set()
    return frozenset(host for host in hosts if "." not in host)
