"""How the files of one stage get into another: a program in the build machine, which has the other stage's disk.

The host neither mounts that disk nor sees the files. Names are resolved with the stage's root as ``/``, by programs of
the stage: a link that leads out of it ends within it. What those programs say can only harm the recipe's own machine.
"""

from __future__ import annotations

from pandastack.images.actions import StageCopyAction
from pandastack.images.copying import OWNER_BY_NUMBER
from pandastack.images.patterns import has_wildcard

_LIST = r"""
set -euo pipefail
shopt -s dotglob nullglob
IFS=
for each; do
  case $each in
    pattern:*) names=(${each#pattern:}) ;;
    *) names=("${each#name:}") ;;
  esac
  if [ ${#names[@]} = 0 ]; then
    echo "${each#pattern:}: no such file in the stage" >&2
    exit 1
  fi
  for name in "${names[@]}"; do
    printf '%s\0' "$name"
    if ! realpath --canonicalize-existing --zero -- "$name" 2>&-; then
      echo "$name: no such file in the stage" >&2
      exit 1
    fi
  done
done
"""
"""Write each file's name, as it was asked for, and where it really is in the stage, each ended by a zero byte.
``dotglob``: Go's patterns, which Dockerfiles have, match a leading dot. The stage has no ``/dev/null``."""

SCRIPT = (
    r"""
set -euo pipefail
export LC_ALL=C PATH=/usr/sbin:/usr/bin:/sbin:/bin
list=$1 disk=$2 destination=$3 owner=$4 group=$5 mode=$6
root=/run/pandastack/stage found=/run/pandastack/found
for serial in /sys/block/vd*/serial; do
  [ "$(<"$serial")" = "$disk" ] && device=/dev/$(basename "${serial%/serial}")
done
shift 6
"""
    + OWNER_BY_NUMBER
    + r"""mkdir -p "$root"
mount -t ext4 -o ro "$device" "$root"
trap 'umount "$root"' EXIT
chroot "$root" /bin/bash -c "$list" list "$@" >"$found"
mapfile -d '' -t names <"$found"
pack=(--xattrs --xattrs-include='*' --numeric-owner)
[ -z "$owner" ] || pack+=(--owner=":${owner#+}" --group=":${group#+}")
[ -z "$mode" ] || pack+=(--mode="$mode")
into=
[[ $destination != */ && $destination != */. && ! -d $destination ]] || into=1
if [ -z "$into" ] && [ ${#names[@]} -gt 2 ]; then
  echo "several sources need a folder as destination: $destination (end it with /)" >&2
  exit 1
fi
for ((i = 0; i < ${#names[@]}; i += 2)); do
  source=$root${names[i + 1]} target=$destination
  if [ -d "$source" ]; then
    known=--no-overwrite-dir
    [ -d "$target" ] || known=--overwrite-dir
    mkdir -p -- "$target"
    tar --create --directory="$source" "${pack[@]}" . |
      tar --extract --directory="$target" --xattrs --xattrs-include='*' --numeric-owner \
        --keep-directory-symlink "$known"
    continue
  fi
  [ -z "$into" ] || target=$destination/$(basename -- "${names[i]}")
  mkdir -p -- "$(dirname -- "$target")"
  cp --archive --no-target-directory --remove-destination -- "$source" "$target"
  if [ -n "$owner" ]; then
    chown "$owner:$group" -- "$target"
    chmod --reference="$source" -- "$target"
  fi
  [ -z "$mode" ] || chmod "$mode" -- "$target"
done
"""
)
"""Copy to a destination. A folder that is there keeps its own mode and owner, a new one gets those of the source."""


def disk_name(stage: int) -> str:
    """The name of a stage's disk in a build machine that copies from it."""
    return f"stage-{stage}"


def arguments(action: StageCopyAction) -> tuple[str, ...]:
    """The program and its arguments that carry out ``action``."""
    owner = ("", "") if action.owner is None else action.owner.words
    mode = "" if action.permissions is None else f"{action.permissions:o}"
    sources = (f"{'pattern' if has_wildcard(each) else 'name'}:{each}" for each in action.sources)
    disk = disk_name(action.stage)
    return ("/bin/bash", "-c", SCRIPT, "copy", _LIST, disk, action.destination, *owner, mode, *sources)
