"""What differs between two states of guests, over the engine's HTTP interface."""

from __future__ import annotations

import stat
from collections import Counter
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from pandastack.engine.compare.diff import CHANGES_MAX, Change, Diffs, Point
from pandastack.engine.http.bodies import identifier, json_body
from pandastack.errors import BadRequestError
from pandastack.guest import Node

ANSWER_CHARACTERS = 4 * 1024 * 1024
"""Paths, link targets and patches in one answer; what goes beyond is counted only."""

_KINDS = {"-": "file", "d": "directory", "l": "link", "c": "device", "b": "device", "p": "fifo", "s": "socket"}


async def diff(request: Request) -> Response:
    """Body: ``from`` and ``to``, each with ``sandbox``, ``snapshot`` (ids) or ``template`` (a name); ``patch``."""
    diffs: Diffs = request.app.state.engine.diffs
    body = await json_body(request)
    found = await diffs.between(_point(body, "from"), _point(body, "to"), patches=bool(body.get("patch")))
    return JSONResponse(answer(found))


def _point(body: Mapping[str, Any], field: str) -> Point:
    value = body.get(field)
    if isinstance(value, dict):
        if "sandbox" in value:
            return Point(sandbox=identifier(value, "sandbox"))
        if "snapshot" in value:
            return Point(snapshot=identifier(value, "snapshot"))
        if isinstance(value.get("template"), str):
            return Point(template=value["template"])
    raise BadRequestError(f"{field} must name a sandbox, a snapshot or a template", field=field)


def answer(found: list[Change]) -> dict[str, Any]:
    """All changes in numbers, and as many as one answer holds in full."""
    shown: list[dict[str, Any]] = []
    room = ANSWER_CHARACTERS
    for change in found[:CHANGES_MAX]:
        each = change_json(change)
        room -= sum(len(text) for text in each.values() if isinstance(text, str))
        if room < 0:
            break
        shown.append(each)
    counts = Counter(change.difference.change for change in found)
    return {
        **{kind: counts[kind] for kind in ("added", "removed", "changed")},
        "changes": shown,
        "truncated": len(shown) < len(found),
    }


def change_json(change: Change) -> dict[str, Any]:
    """One change. Bytes of a path that are no text are shown as ``\\xNN``."""
    difference = change.difference
    node = difference.after or difference.before
    assert node is not None  # or it were no difference
    shown: dict[str, Any] = {
        "path": text_of(difference.path),
        "kind": _KINDS[node.kind],
        "change": difference.change,
        "what": list(difference.what),
        "before": _node_json(difference.before),
        "after": _node_json(difference.after),
    }
    return shown | ({"unread": True} if change.unread else {}) | ({"patch": change.patch} if change.patch else {})


def _node_json(node: Node | None) -> dict[str, Any] | None:
    if node is None:
        return None
    shown = {"kind": _KINDS[node.kind], "size": node.size if node.kind == "-" else 0, "uid": node.uid, "gid": node.gid}
    shown |= {"mode": stat.filemode(node.mode), "mtime": node.mtime_ns / 1e9}
    return shown | ({"target": text_of(node.target)} if node.kind == "l" else {})


def text_of(name: bytes) -> str:
    """A guest's name for people and JSON."""
    return name.decode("utf-8", "backslashreplace")
