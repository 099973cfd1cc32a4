"""The client behind the class methods of the sandbox class, made on first use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pandastack.sdk._runtime import async_scope

if TYPE_CHECKING:
    from pandastack.sdk._async.client import AsyncClient

_chosen: AsyncClient | None = None
_made: tuple[object | None, AsyncClient] | None = None


def get_default_async_client() -> AsyncClient:
    """The client set by the program, else one from the environment and the configuration file.

    Connections cannot move to another event loop, so a loop that did not make the default client gets a new
    one.
    """
    global _made
    if _chosen is not None:
        return _chosen
    if _made is None or _made[0] is not async_scope():
        from pandastack.sdk._async.client import AsyncClient

        _made = (async_scope(), AsyncClient())
    return _made[1]


def set_default_async_client(client: AsyncClient | None) -> None:
    """Use ``client`` from now on; None forgets the present one, so that the configuration is read again."""
    global _chosen, _made
    _chosen, _made = client, None
