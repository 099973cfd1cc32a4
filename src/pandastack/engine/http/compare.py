"""What differs between two states of guests, over the engine's HTTP interface."""

from __future__ import annotations

import stat
from collections import Counter

from starlette.requests import Request
from starlette.responses import Response

from pandastack.contract.compare import ChangeKind, CompareFiles, Diff, FileChange, FileKind, FileState
from pandastack.contract.references import Point as PointRef
from pandastack.contract.references import SandboxRef, SnapshotRef, TemplateRef
from pandastack.engine.compare.diff import CHANGES_MAX, Change, Diffs, Point
from pandastack.engine.http.messages import large_answer, received
from pandastack.guest import Node

ANSWER_CHARACTERS = 4 * 1024 * 1024
"""The most bytes of paths, link targets and patches in one answer; changes beyond that are only counted."""

_KINDS = {
    "-": FileKind.FILE,
    "d": FileKind.DIRECTORY,
    "l": FileKind.LINK,
    "c": FileKind.DEVICE,
    "b": FileKind.DEVICE,
    "p": FileKind.FIFO,
    "s": FileKind.SOCKET,
}


async def compare(request: Request) -> Response:
    diffs: Diffs = request.app.state.engine.diffs
    wanted = await received(request, CompareFiles)
    found = await diffs.between(_point(wanted.before), _point(wanted.after), patches=wanted.patch)
    return await large_answer(lambda: diff_of(found))


def _point(reference: PointRef) -> Point:
    match reference:
        case SandboxRef(sandbox_id):
            return Point(sandbox=sandbox_id)
        case SnapshotRef(snapshot_id):
            return Point(snapshot=snapshot_id)
        case TemplateRef(name, owner):
            return Point(template=name, owner=owner)


def diff_of(found: list[Change]) -> Diff:
    """The counts of all changes, and as many changes in full as one answer holds."""
    shown: list[FileChange] = []
    room = ANSWER_CHARACTERS
    for change in found[:CHANGES_MAX]:
        each = file_change(change)
        room -= _characters(each)
        if room < 0:
            break
        shown.append(each)
    counts = Counter(change.difference.change for change in found)
    return Diff(
        added=counts[ChangeKind.ADDED],
        removed=counts[ChangeKind.REMOVED],
        changed=counts[ChangeKind.CHANGED],
        changes=tuple(shown),
        truncated=len(shown) < len(found),
    )


def _characters(change: FileChange) -> int:
    targets = [side.target or "" for side in (change.before, change.after) if side]
    return len(change.path) + len(change.patch or "") + sum(map(len, targets))


def file_change(change: Change) -> FileChange:
    """One change."""
    difference = change.difference
    node = difference.after or difference.before
    assert node is not None  # otherwise it would not be a difference
    return FileChange(
        path=text_of(difference.path),
        kind=_KINDS[node.kind],
        change=ChangeKind(difference.change),
        what=difference.what,
        before=_state(difference.before),
        after=_state(difference.after),
        unread=change.unread,
        patch=change.patch,
    )


def _state(node: Node | None) -> FileState | None:
    if node is None:
        return None
    return FileState(
        kind=_KINDS[node.kind],
        size=node.size if node.kind == "-" else 0,
        uid=node.uid,
        gid=node.gid,
        mode=stat.filemode(node.mode),
        mtime=node.mtime_ns / 1e9,
        target=text_of(node.target) if node.kind == "l" else None,
    )


def text_of(name: bytes) -> str:
    """A path from a guest, as text for people and JSON."""
    return name.decode("utf-8", "backslashreplace")
