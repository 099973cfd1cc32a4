"""Inside a sandbox: a line of JSON for each change below a path, by inotify(7).

``watch.py PATH RECURSIVE``. The first line says that from now on no change is missed. A change that happens while a new
directory is being looked at may be told twice.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import select
import struct
import sys

MODIFY, ATTRIB, CLOSE_WRITE, MOVED_FROM, MOVED_TO = 0x2, 0x4, 0x8, 0x40, 0x80
CREATE, DELETE, DELETE_SELF, OVERFLOW, IGNORED = 0x100, 0x200, 0x400, 0x4000, 0x8000
ONLY_DIRECTORIES, NO_LINKS, IS_DIRECTORY = 0x1000000, 0x2000000, 0x40000000
MASK = MODIFY | ATTRIB | CLOSE_WRITE | MOVED_FROM | MOVED_TO | CREATE | DELETE | DELETE_SELF
CLOSE_ON_EXEC = 0x80000
HALVES_SECONDS = 0.1
EVENT = struct.Struct("iIII")
KINDS = ((CREATE, "created"), (DELETE, "deleted"), (ATTRIB, "attributes"), (MODIFY | CLOSE_WRITE, "modified"))


class Watch:
    """One inotify instance and the paths of its watches."""

    def __init__(self, root: str, recursive: bool) -> None:
        self.root = root
        self.recursive = recursive
        self.libc = ctypes.CDLL(None, use_errno=True)
        self.fd = self.libc.inotify_init1(CLOSE_ON_EXEC)
        self.paths: dict[int, str] = {}
        self.last: dict[str, object] = {}
        self.watch(root, 0)
        if recursive:
            self.descend(root, announce=False)

    def watch(self, path: str, flags: int) -> bool:
        """Watch one path; false when it is gone, or no directory where only one is wanted."""
        number = self.libc.inotify_add_watch(self.fd, os.fsencode(path), MASK | flags)
        if number >= 0:
            self.paths[number] = path
            return True
        failure = ctypes.get_errno()
        if flags and failure in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return False
        sys.exit("too many directories to watch" if failure == errno.ENOSPC else os.strerror(failure))

    def descend(self, top: str, announce: bool) -> None:
        """Watch the directories below ``top``, and tell what is in them if it appeared with them."""
        waiting = [top]
        while waiting:
            try:
                with os.scandir(waiting.pop()) as entries:
                    found = [(entry.path, entry.is_dir(follow_symlinks=False)) for entry in entries]
            except OSError:
                continue
            for path, is_dir in found:
                if announce:
                    self.tell("created", path, is_dir)
                if is_dir and self.watch(path, ONLY_DIRECTORIES | NO_LINKS):
                    waiting.append(path)

    def tell(self, kind: str, path: str = "", is_dir: bool = False, **more: str) -> None:
        """One line; several modifications of a file in a row are one."""
        event: dict[str, object] = {"type": kind, "path": readable(path), "is_dir": is_dir, **more}
        if kind != "modified" or event != self.last:
            print(json.dumps(event))
        self.last = event

    def run(self) -> None:
        """Until the path itself is deleted."""
        self.tell("ready", self.root)
        moving: dict[int, tuple[str, bool]] = {}
        while True:
            sys.stdout.flush()
            # The two halves of a move follow each other closely, but a read may come between them.
            if moving and not select.select([self.fd], [], [], HALVES_SECONDS)[0]:
                for path, is_dir in moving.values():  # moved to where nobody watches
                    self.tell("deleted", path, is_dir)
                moving.clear()
                continue
            data, at = os.read(self.fd, 1 << 16), 0
            while at < len(data):
                number, mask, cookie, length = EVENT.unpack_from(data, at)
                at += EVENT.size + length
                name = data[at - length : at].rstrip(b"\0")
                if self.take(number, mask, cookie, os.fsdecode(name), moving):
                    return

    def take(self, number: int, mask: int, cookie: int, name: str, moving: dict[int, tuple[str, bool]]) -> bool:
        """One event; true when it was the last."""
        if mask & OVERFLOW:
            self.tell("overflow")
            return False
        place = self.paths.get(number)
        if place is None or mask & IGNORED:
            self.paths.pop(number, None)
            return False
        path, is_dir = f"{place.rstrip('/')}/{name}" if name else place, bool(mask & IS_DIRECTORY)
        if mask & DELETE_SELF:
            if place == self.root:
                self.tell("deleted", place, is_dir)
            return place == self.root
        if mask & MOVED_FROM:
            moving[cookie] = path, is_dir
        elif mask & MOVED_TO:
            before = moving.pop(cookie, None)
            self.arrived(before[0] if before else None, path, is_dir)
        else:
            self.tell(next(kind for bits, kind in KINDS if mask & bits), path, is_dir)
            if mask & CREATE and is_dir and self.recursive and self.watch(path, ONLY_DIRECTORIES | NO_LINKS):
                self.descend(path, announce=True)
        return False

    def arrived(self, before: str | None, path: str, is_dir: bool) -> None:
        """Something was moved here, from ``before`` if that is known."""
        if before is None:
            self.tell("created", path, is_dir)
        else:
            self.tell("moved", path, is_dir, **{"from": readable(before)})
            for number, known in self.paths.items():
                if known == before or known.startswith(before + "/"):
                    self.paths[number] = path + known[len(before) :]
        if is_dir and self.recursive and self.watch(path, ONLY_DIRECTORIES | NO_LINKS):
            self.descend(path, announce=before is None)


def readable(path: str) -> str:
    """A path as text that JSON can hold, whatever its bytes are."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


if __name__ == "__main__":
    Watch(sys.argv[1], sys.argv[2] == "1").run()
