"""The version of the contract. Both sides send it in a header of every request and every answer."""

from __future__ import annotations

from pandastack.errors import ServerError

VERSION = "8"
"""Incremented whenever a message or a path changes so that the other side would no longer understand it."""

HEADER = "x-pandastack-engine-version"


def check_version(engine: str | None, control_plane: str | None) -> None:
    """Raise a :class:`ServerError` that names both versions if they differ; None: the side sent no version."""
    if engine != control_plane:
        raise ServerError(
            f"the engine speaks version {_shown(engine)} of its interface,"
            f" the control plane version {_shown(control_plane)}",
            hint="run control plane and engine from the same release",
        )


def _shown(version: str | None) -> str:
    return "unknown" if version is None else repr(version[:32])
