"""Two lists of what differs from the same template, compared. Pure.

Both guests descend from one capture, so a file with the same inode number, size and times on both sides is the same
file, untouched since. What the lists cannot decide is left to the caller, who can read the files.
"""

from __future__ import annotations

from dataclasses import dataclass

from pandastack.guest import Listing, Node


@dataclass(frozen=True, slots=True)
class Difference:
    """One path. ``before`` or ``after`` is None where nothing exists; ``what`` says how two existing ones differ.

    With ``undecided`` both are files of the same size, and only their contents can tell whether they differ.
    """

    path: bytes
    before: Node | None
    after: Node | None
    what: tuple[str, ...] = ()
    undecided: bool = False

    @property
    def change(self) -> str:
        return "added" if self.before is None else "removed" if self.after is None else "changed"


def differences(before: Listing, after: Listing) -> list[Difference]:
    """What differs, by path. A directory that was deleted whole is one entry."""
    found = []
    for path in sorted({*before, *after}):
        here, there = _state(before, after, path), _state(after, before, path)
        if here is None and there is None:
            continue
        if here is None or there is None:
            found.append(Difference(path, here, there))
            continue
        what = _what(here, there)
        undecided = "-" == here.kind == there.kind and 0 < here.size == there.size
        undecided = undecided and not (path in before and path in after and _untouched(here, there))
        if what or undecided:
            found.append(Difference(path, here, there, what, undecided))
    return found


def _state(listing: Listing, other: Listing, path: bytes) -> Node | None:
    """What is at ``path``: the list's entry, else the template's, unless something above hides it."""
    if path in listing:
        return listing[path].now
    return None if _hidden(listing, path) else other[path].template


def _hidden(listing: Listing, path: bytes) -> bool:
    """Whether an entry above ``path`` says that nothing can be there: it was deleted, or is no directory now."""
    above = path.rpartition(b"/")[0]
    while above:
        each = listing.get(above)
        if each is not None and (each.now is None or each.now.kind != "d"):
            return True
        above = above.rpartition(b"/")[0]
    return False


def _what(before: Node, after: Node) -> tuple[str, ...]:
    if before.kind != after.kind:
        return ("kind",)
    differs = {
        "content": before.kind == "-" and before.size != after.size,
        "target": before.target != after.target,
        "device": before.device != after.device,
        "mode": before.mode != after.mode,
        "owner": (before.uid, before.gid) != (after.uid, after.gid),
    }
    return tuple(name for name, really in differs.items() if really)


def _untouched(before: Node, after: Node) -> bool:
    return (before.inode, before.mtime_ns, before.ctime_ns) == (after.inode, after.mtime_ns, after.ctime_ns)
