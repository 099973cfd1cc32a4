# Generated from ../_async/network.py by scripts/generate_sync.py: change that file, not this one.
"""What a sandbox may reach: its policy, and the log of what it wanted to."""

from __future__ import annotations

import builtins
import json
from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import Any

from pandastack.errors import UnavailableError
from pandastack.sdk._sse import EventDecoder
from pandastack.sdk._sync.interfaces import SandboxHandle
from pandastack.sdk._types import EgressDecision
from pandastack.sdk.wire.call import STREAM_SILENCE_SECONDS, Call, allow_destination, segment, set_network
from pandastack.sdk.wire.coding import mapped_transport_errors


class SandboxNetwork:
    """The network of one sandbox. None of its methods wakes the sandbox."""

    def __init__(self, sandbox: SandboxHandle) -> None:
        self._sandbox = sandbox

    def get(self) -> dict[str, Any]:
        """The policy in force (``egress``, ``services``, ``secrets``, ``limits``), ``bytes_in`` and ``bytes_out``."""
        return self._sandbox.client.transport.object(self._call("/network"))

    def set(self, policy: str | Mapping[str, Any]) -> dict[str, Any]:
        """Replace the policy, and return as :meth:`get`. When this returns, the new one is in force.

        ``policy`` is ``"allow"``, ``"deny"``, ``"none"``, or an object with ``egress`` and perhaps ``services`` (such
        as ``["sandbox:ID:8000"]``). Raises BadRequestError that names the field.
        """
        return self._sandbox.client.transport.object(set_network(self._sandbox.id, policy))

    def allow(self, host: str, port: int | None = None) -> dict[str, Any]:
        """Allow one destination more: a name, ``*.DOMAIN``, an address or a network, or a service of the workspace such
        as ``sandbox:ID:PORT``. Returns as :meth:`get`, and ``rule``.

        Raises BadRequestError, and ConflictError when another rule denies it.
        """
        return self._sandbox.client.transport.object(allow_destination(self._sandbox.id, host, port))

    def check(self, host: str, port: int, protocol: str = "tcp") -> dict[str, Any]:
        """What would be decided about a connection: ``allowed``, ``rule``, ``how_to_allow``, ``reason``.

        Nothing is sent or looked up.
        """
        params = {"host": host, "port": str(port), "protocol": protocol}
        return self._sandbox.client.transport.object(self._call("/network/check", params=params))

    def log(self, since: int = 0) -> builtins.list[EgressDecision]:
        """What the sandbox wanted to reach after the record numbered ``since``: at most 1000 records, oldest first."""
        call = self._call("/egress/log", params={"since": str(since)})
        found = self._sandbox.client.transport.list(call, "records")
        return [EgressDecision.from_dict(each) for each in found]

    def follow_log(self, since: int = 0) -> Iterator[EgressDecision]:
        """The same, and then each new record as it is made, until the sandbox is deleted or its connection breaks."""
        params = {"since": str(since), "follow": "1"}
        call = self._call("/egress/log", params=params, silence=STREAM_SILENCE_SECONDS, streamed=True)
        response = self._sandbox.client.transport.run(call)
        with closing(response):
            decoder, pieces = EventDecoder(), response.iter_bytes()
            while True:
                with mapped_transport_errors(self._sandbox.client.api_url):
                    piece = next(pieces, None)
                if piece is None:
                    return
                for event in decoder.feed(piece):
                    if event.name == "decision":
                        yield EgressDecision.from_dict(json.loads(event.data))
                    elif event.name == "error":
                        raise UnavailableError(str(json.loads(event.data).get("error") or "the log cannot be read"))

    def _call(self, below: str, **options: Any) -> Call:
        return Call("GET", f"/sandboxes/{segment(self._sandbox.id)}{below}", **options)
