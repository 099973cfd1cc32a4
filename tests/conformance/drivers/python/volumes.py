"""Volumes: disks that outlive sandboxes."""

from __future__ import annotations

import secrets

import seen


def life(client) -> dict[str, object]:
    name = f"conformance-{secrets.token_hex(4)}"
    made = client.volumes.create(name, 64)
    told = {
        "made": made,
        "twice": seen.error(lambda: client.volumes.create(name, 64)),
        "bad": seen.error(lambda: client.volumes.create("a/b", 64)),
        "large": seen.error(lambda: client.volumes.create("large", 65537)),
    }
    mounts = [{"name": name}]
    with client.sandboxes.create("base", volumes=mounts) as first:
        first.exec(f"echo kept > /mnt/{name}/file", check=True)
        told |= {
            "holder": first.id,
            "attached": client.volumes.get(name),
            "second": seen.error(lambda: client.sandboxes.create("base", volumes=mounts)),
            "in_use": seen.error(lambda: client.volumes.delete(name)),
        }
    with client.sandboxes.create("base", volumes=[{"name": name, "read_only": True}]) as second:
        told |= {
            "read": seen.result(second.exec(f"cat /mnt/{name}/file")),
            "written": second.exec(f"touch /mnt/{name}/file").exit_code,
        }
    told["listed"] = [each["name"] for each in client.volumes.list()]
    client.volumes.delete(name)
    return told | {
        "after": seen.error(lambda: client.volumes.get(name)),
        "deleted_twice": seen.error(lambda: client.volumes.delete(name)),
    }
