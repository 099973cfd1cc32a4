"""Programs of this host, lent to a build machine: images of others may have no bash, no GNU tar, no shell at all.

They lie below ``/run``, which is never part of an image, with the libraries and the loader that they have here, so it
does not matter which C library the image has.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from pandastack.errors import BuildError
from pandastack.host.facts import program
from pandastack.host.processes.run import run

PLACE = "/run/pandastack/tools"
"""Where they are in the guest."""

_LOADER = "ld.so"

PROGRAMS = (
    *("bash", "basename", "cat", "chmod", "chown", "chroot", "cp", "cut", "dirname", "fstrim", "getent", "id", "mkdir"),
    *("mktemp", "mount", "mv", "realpath", "rm", "rmdir", "tar", "umount"),
)
"""What our own programs for the guest call."""

DECOMPRESSORS = ("gzip", "bzip2", "xz", "zstd")
"""What tar calls for archives; those of them that this host has are lent."""

_LIBRARY = re.compile(r"\s*(?:(\S+) => )?(/\S+) \(0x[0-9a-f]+\)")


async def find_tools(more: Iterable[str] = ()) -> Mapping[str, Path]:
    """The files to lend, by their names in :data:`PLACE`: :data:`PROGRAMS`, ``more``, and what they load.

    Raises :class:`BuildError` for a program that this host does not have.
    """
    paths = {name: _found(name) for name in (*PROGRAMS, *more)}
    paths |= {name: path for name in DECOMPRESSORS if (path := program(name)) is not None}
    listed = (await run(["ldd", *paths.values()], timeout=60)).text
    return paths | libraries(listed)


def libraries(listed: str) -> dict[str, Path]:
    """The libraries in the output of ldd(1), by their names; the loader among them has one of its own."""
    found = {}
    for line in listed.splitlines():
        if match := _LIBRARY.fullmatch(line):
            found[match[1] or _LOADER] = Path(match[2])
    return found


def _found(name: str) -> Path:
    path = program(name)
    if path is None:
        raise BuildError(f"this host has no program {name}", hint="`pandastack doctor` names the package")
    return path


def lent(argv: Sequence[str], place: str = PLACE) -> tuple[str, ...]:
    """``argv`` run with the lent program of the same name. bash finds the other programs by :data:`PRELUDE`."""
    name = argv[0].rpartition("/")[2]
    words = [*argv[1:]]
    if name == "bash" and words[:1] == ["-c"]:
        words[1] = PRELUDE + words[1]
    return (f"{place}/{_LOADER}", "--library-path", place, f"{place}/{name}", *words)


def _functions(place: str) -> str:
    names = shlex.join(each for each in (*PROGRAMS, *DECOMPRESSORS) if each not in ("bash", "chroot", "tar"))
    return rf"""
lend() {{ local name=$1; shift; {place}/{_LOADER} --library-path {place} "{place}/$name" "$@"; }}
for each in {names}; do
  [ ! -e {place}/$each ] || eval "$each() {{ lend $each \"\$@\"; }}"
done
tar() {{
  local each words=()
  for each; do
    if [[ $each = --use-compress-program=* ]]; then
      each="${{each%%=*}}={place}/{_LOADER} --library-path {place} {place}/${{each#*=}}"
    fi
    words+=("$each")
  done
  lend tar "${{words[@]}}"
}}
"""


PRELUDE = (
    _functions(PLACE)
    + rf"""
chroot() {{
  local root=$1 status=0
  shift 3
  if [ ! -d "$root/proc" ] || [ -L "$root/proc" ]; then
    echo "the stage has no folder /proc" >&2
    return 1
  fi
  lend mount --bind {PLACE} "$root/proc"
  set -- {shlex.quote(_functions("/proc"))}"$@"
  lend chroot "$root" /proc/{_LOADER} --library-path /proc /proc/bash -c "$@" || status=$?
  lend umount "$root/proc"
  return $status
}}
"""
)
"""Makes functions of the lent programs. ``chroot ROOT /bin/bash -c …`` runs the lent bash, for which the tools lie in
the place of ``/proc`` meanwhile: a folder of which nobody copies files."""
