"""The client behind the class methods of the sandbox class, made on first use."""

from __future__ import annotations

from collections.abc import Callable

from pandastack.sdk._async.interfaces import AsyncConnection
from pandastack.sdk._runtime import async_scope

_factory: Callable[[], AsyncConnection] | None = None
_chosen: AsyncConnection | None = None
_made: tuple[object | None, AsyncConnection] | None = None


def make_with(factory: Callable[[], AsyncConnection]) -> None:
    """The factory of the default client, set by the module of the client class."""
    global _factory
    _factory = factory


def default_connection() -> AsyncConnection:
    """The client set by the program, otherwise one from the environment and the configuration file.

    Connections cannot move to another event loop, so a loop that did not create the default client gets a new
    one.
    """
    global _made
    if _chosen is not None:
        return _chosen
    if _made is None or _made[0] is not async_scope():
        assert _factory is not None, "the package imports the client class"
        _made = (async_scope(), _factory())
    return _made[1]


def choose(client: AsyncConnection | None) -> None:
    """Use ``client`` from now on; None drops the current one, so that the configuration is read again."""
    global _chosen, _made
    _chosen, _made = client, None
