"""Volumes: disks that outlive sandboxes."""

from __future__ import annotations

import seen


def life(client) -> dict[str, object]:
    made = client.volumes.create("conformance", 64)
    told = {
        "made": made,
        "twice": seen.error(lambda: client.volumes.create("conformance", 64)),
        "bad": seen.error(lambda: client.volumes.create("conformance/x", 64)),
        "large": seen.error(lambda: client.volumes.create("large", 65537)),
    }
    mounts = [{"name": "conformance"}]
    with client.sandboxes.create("base", volumes=mounts) as first:
        first.exec("echo kept > /mnt/conformance/file", check=True)
        told |= {
            "holder": first.id,
            "attached": client.volumes.get("conformance"),
            "second": seen.error(lambda: client.sandboxes.create("base", volumes=mounts)),
            "in_use": seen.error(lambda: client.volumes.delete("conformance")),
        }
    with client.sandboxes.create("base", volumes=[{"name": "conformance", "read_only": True}]) as second:
        told |= {
            "read": seen.result(second.exec("cat /mnt/conformance/file")),
            "written": second.exec("touch /mnt/conformance/file").exit_code,
        }
    told["listed"] = [each["name"] for each in client.volumes.list()]
    client.volumes.delete("conformance")
    return told | {
        "after": seen.error(lambda: client.volumes.get("conformance")),
        "deleted_twice": seen.error(lambda: client.volumes.delete("conformance")),
    }
