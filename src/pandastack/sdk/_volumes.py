"""The requests of volumes."""

from __future__ import annotations

from collections.abc import Mapping

from pandastack.sdk.wire.call import CAPTURE_SILENCE_SECONDS, Call, new_key, segment


def create_volume(
    name: str,
    size_mb: int | None,
    source: Mapping[str, str] | None = None,
    kind: str | None = None,
    key: str | None = None,
) -> Call:
    """``POST /volumes``. ``source`` is what it is a clone of. ``key`` None: a new one."""
    optional = {"size_mb": size_mb, "from": source, "kind": kind}
    body = {"name": name} | {field: value for field, value in optional.items() if value is not None}
    return Call("POST", "/volumes", json=body, creates=True, key=key or new_key(), silence=CAPTURE_SILENCE_SECONDS)


def one_volume(method: str, name: str) -> Call:
    """A request about one volume."""
    return Call(method, f"/volumes/{segment(name)}")


def grow_volume(name: str, size_mb: int) -> Call:
    """``POST /volumes/{name}/grow``."""
    path = f"/volumes/{segment(name)}/grow"
    return Call("POST", path, json={"size_mb": size_mb}, silence=CAPTURE_SILENCE_SECONDS)
