"""Programs for the build machine, in any shell: make the mounts of a RUN before it, and take them away after it.

A secret is a file in the guest's memory, bound to its target; the empty file that the target needs, and folders above
it, are removed again if they were made for it, so that the layer has no trace of the mount.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pandastack.images.mounts import MemoryMount, Mount

VALUES = "/run/pandastack-secrets"
"""Where the values of secrets lie: a folder that only root can enter, on a file system in the guest's memory."""

_STATE = "/run/pandastack-mounts"
"""Which folders and files were made for mounts: one file for each mount, by its number."""

_PARTS = 6

_MOUNT = rf"""
set -eu
mkdir -p -m 700 {_STATE}
while [ $# -gt 0 ]; do
  number=$1 kind=$2 target=$3 owner=$4 mode=$5 size=$6
  shift {_PARTS}
  first= above=$target
  while ! [ -e "$above" ] && ! [ -L "$above" ]; do
    first=$above above=$(dirname -- "$above")
  done
  printf %s "$first" >{_STATE}/$number
  if [ "$kind" = tmpfs ]; then
    mkdir -p -- "$target"
    mount -t tmpfs -o "$size" tmpfs "$target"
    continue
  fi
  chown "$owner" {VALUES}/$number
  chmod "$mode" {VALUES}/$number
  mkdir -p -- "$(dirname -- "$target")"
  if [ -d "$target" ]; then
    echo "the target of the secret is a folder: $target" >&2
    exit 1
  fi
  [ -e "$target" ] || : >"$target"
  mount -o bind {VALUES}/$number "$target"
done
"""

_UNMOUNT = rf"""
set -u
kill -9 -1 2>/dev/null
while [ $# -gt 0 ]; do
  number=$1 target=$2
  shift 2
  umount -l "$target" 2>/dev/null
  first=$(cat {_STATE}/$number 2>/dev/null)
  [ -n "$first" ] || continue
  [ -d "$target" ] || [ -s "$target" ] || rm -f -- "$target"
  while [ ${{#target}} -ge ${{#first}} ]; do
    [ ! -d "$target" ] || rmdir -- "$target" 2>/dev/null || break
    target=$(dirname -- "$target")
  done
done
rm -rf {VALUES} {_STATE}
exit 0
"""
"""A RUN ends with all its programs, as in a container: what it left running would be missing where its layer is cached.
``kill`` spares this shell and the agent, which is the init."""


def mounting(mounts: Sequence[Mount]) -> tuple[str, ...]:
    """The program that makes those of ``mounts`` that have a target. The value of number N is in ``VALUES/N``."""
    return ("/bin/sh", "-c", _MOUNT, "mount", *(word for each in enumerate(mounts) for word in _words(*each)))


def unmounting(mounts: Sequence[Mount]) -> tuple[str, ...]:
    """The program that ends what a RUN has left running, and takes its mounts away, the last first."""
    there = [(str(number), each.target) for number, each in enumerate(mounts) if each.target]
    return ("/bin/sh", "-c", _UNMOUNT, "unmount", *(word for pair in reversed(there) for word in pair))


def _words(number: int, mount: Mount) -> Iterator[str]:
    if not mount.target:
        return
    yield str(number)
    if isinstance(mount, MemoryMount):
        size = f"size={mount.size}" if mount.size else "size=50%"
        yield from ("tmpfs", mount.target, "", "", f"nosuid,nodev,mode=1777,{size}")
    else:
        yield from ("secret", mount.target, f"{mount.uid}:{mount.gid}", f"{mount.mode:o}", "")
