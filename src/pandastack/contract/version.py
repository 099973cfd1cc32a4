"""Which contract somebody speaks. Both sides say it in a header of every request and every answer."""

from __future__ import annotations

from pandastack.errors import ServerError

VERSION = "1"
"""Raised whenever a message or a path changes so that the other side would no longer understand it."""

HEADER = "x-pandastack-engine-version"


def check_version(engine: str | None, control_plane: str | None) -> None:
    """Raise :class:`ServerError` naming both versions when they differ; None is a side that names none."""
    if engine != control_plane:
        raise ServerError(
            f"the engine speaks version {_shown(engine)} of its interface,"
            f" the control plane version {_shown(control_plane)}",
            hint="run control plane and engine from the same release",
        )


def _shown(version: str | None) -> str:
    return "unknown" if version is None else repr(version[:32])
