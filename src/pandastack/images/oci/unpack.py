"""What unpacks an image in a machine of its own: umoci, which knows how layers change one another.

The machine has an empty root, the layout as a read-only disk whose files are named by hashes, and the image's future
disk. Whatever hostile layers make of umoci, they have nothing there but themselves.
"""

from __future__ import annotations

from pandastack.images.oci.skopeo import TAG

UMOCI = "umoci"

LAYOUT_DISK, IMAGE_DISK = "layout", "image"
"""The disks' names in the machine."""

ROOT = "/run/pandastack/root"
"""Where the image's disk is mounted."""

SCRIPT = rf"""
set -euo pipefail
layout=/run/pandastack/layout root={ROOT}
device_of() {{
  local serial
  for serial in /sys/block/vd*/serial; do
    [ "$(<"$serial")" = "$1" ] && echo "/dev/$(basename "${{serial%/serial}}")" && return
  done
  return 1
}}
mkdir -p "$layout" "$root"
mount -t ext4 -o ro,nosuid,nodev,noexec "$(device_of {LAYOUT_DISK})" "$layout"
mount -t ext4 -o nosuid,nodev,noexec,noatime "$(device_of {IMAGE_DISK})" "$root"
rm -rf "$root/lost+found"
status=0
lend {UMOCI} raw unpack --image "$layout:{TAG}" "$root" >/run/umoci.log 2>&1 || status=$?
if [ $status != 0 ]; then
  said=$(</run/umoci.log)
  [ ${{#said}} -le 2000 ] || said=${{said: -2000}}
  echo "$said" >&2
  exit $status
fi
cd "$root"
for each in dev proc run sys tmp; do
  if [ -L $each ] || {{ [ -e $each ] && [ ! -d $each ]; }}; then
    echo "/$each of the image is not a folder" >&2
    exit 1
  fi
  mkdir -p $each
done
"""
"""``/proc`` and its like are there for the machines that will copy from this image without ever having booted it."""

FINISH = rf"""
set -euo pipefail
fstrim {ROOT} || true
umount {ROOT}
"""

STATUS = f"{ROOT}/var/lib/dpkg/status"
"""dpkg's list of packages, if the image has one."""

_REASONS = {
    "no space left on device": (
        "the image does not fit on a disk of {mb} MiB",
        "a larger disk_mb (size_mb of the API)",
    ),
    "mismatch": ("a layer is not what the configuration says", "the image is damaged: push it anew"),
    "is not a folder": ("machines cannot boot from it", "they mount file systems there"),
    "unexpected EOF": ("a layer ends too early", "the image is damaged: push it anew"),
    "invalid header": ("a layer is damaged", "the image is damaged: push it anew"),
}


def reason_of(said: str, disk_mb: int) -> tuple[str, str | None]:
    """Why umoci failed, in a sentence, and what to do; by what it wrote."""
    for words, (reason, hint) in _REASONS.items():
        if words in said:
            return reason.format(mb=disk_mb), hint
    return "a layer cannot be unpacked", None
