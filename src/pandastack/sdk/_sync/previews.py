# Generated from ../_async/previews.py by scripts/generate_sync.py: change that file, not this one.
"""What listens in a sandbox: its ports, and the addresses and links that reach them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pandastack.sdk._previews import Port, PreviewLink, preview_address
from pandastack.sdk._sync.interfaces import Connection
from pandastack.sdk.wire.call import Call, segment
from pandastack.sdk.wire.coding import json_list


class Previews:
    """The part of a sandbox that deals with its ports."""

    id: str

    if TYPE_CHECKING:

        @property
        def client(self) -> Connection: ...

        def _path(self, below: str = "") -> str: ...

    def preview_url(self, port: int) -> str:
        """The address of what listens at ``port``: for browsers, WebSockets and other programs. It asks nobody.

        The name is below ``client.preview_host``, ``PANDASTACK_PREVIEW_HOST``, or the server's own name. Names below
        ``localhost`` work in browsers; other programs connect to 127.0.0.1 and send the name as ``Host``.
        """
        return preview_address(self.client.api_url, self.client.preview_host, self.id, port)

    def ports(self) -> list[Port]:
        """The ports that programs listen at, and those with a label."""
        answer = self.client.transport.run(Call("GET", self._path("/ports")))
        return [Port.from_dict(each) for each in json_list(answer)]

    def preview_urls(self) -> dict[int, str]:
        """The address of each port that something listens at, or that has a label."""
        return {each.port: self.preview_url(each.port) for each in self.ports()}

    def label_port(self, port: int, label: str | None = None) -> Port:
        """Give a port a label; ``service`` by default."""
        call = Call("POST", self._path("/ports"), json={"port": port, "label": label})
        return Port.from_dict(self.client.transport.object(call))

    def unlabel_port(self, port: int) -> None:
        """Take a port's label."""
        self.client.transport.run(Call("DELETE", self._path(f"/ports/{port}")))

    def create_preview(
        self, port: int, ttl_seconds: float | None = None, paths: Sequence[str] | None = None
    ) -> PreviewLink:
        """A link to a port for anyone who has it, for at most a week (default: an hour), and only below ``paths``."""
        body = {"port": port, "ttl_seconds": ttl_seconds, "paths": None if paths is None else list(paths)}
        call = Call("POST", self._path("/preview-token"), json=body)
        return PreviewLink.from_dict(self.client.transport.object(call))

    def revoke_preview(self, prefix: str) -> None:
        """Revoke a link, named by the ``prefix`` of its token."""
        self.client.transport.run(Call("DELETE", self._path(f"/preview-token/{segment(prefix)}")))
