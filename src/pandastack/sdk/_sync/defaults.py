# Generated from ../_async/defaults.py by scripts/generate_sync.py: change that file, not this one.
"""The client behind the class methods of the sandbox class, made on first use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pandastack.sdk._runtime import scope

if TYPE_CHECKING:
    from pandastack.sdk._sync.client import Client

_chosen: Client | None = None
_made: tuple[object | None, Client] | None = None


def get_default_client() -> Client:
    """The client set by the program, else one from the environment and the configuration file.

    Connections cannot move to another event loop, so a loop that did not make the default client gets a new
    one.
    """
    global _made
    if _chosen is not None:
        return _chosen
    if _made is None or _made[0] is not scope():
        from pandastack.sdk._sync.client import Client

        _made = (scope(), Client())
    return _made[1]


def set_default_client(client: Client | None) -> None:
    """Use ``client`` from now on; None forgets the present one, so that the configuration is read again."""
    global _chosen, _made
    _chosen, _made = client, None
