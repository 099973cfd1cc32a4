"""Databases: made, copied, changed, deleted."""

from __future__ import annotations

import seen


def life(client) -> dict[str, object]:
    made = client.databases.create(label="conformance")
    one = made["id"]
    told = {
        "made": made,
        "got": client.databases.get(one),
        "listed": [each for each in client.databases.list() if each["id"] == one],
        "connection": client.databases.connection(one),
        "updated": client.databases.update(one, always_on=True),
        "woken": client.databases.wake(one),
        "ready": client.databases.wait_until_ready(one, timeout=60),
        "renewed": client.databases.reset_credentials(one),
        "copy": client.databases.clone(one),
        "size": seen.error(lambda: client.databases.create(size="3g")),
        "past": seen.error(lambda: client.databases.clone(one, target_time="2026-01-01T00:00:00Z")),
        "failover": seen.error(lambda: client.databases.failover(one)),
        "machine": seen.error(lambda: client.sandboxes.get(one).kill()),
    }
    begun = client.databases.clone(one, label="at once", wait=False)
    told["begun"] = begun
    for each in (begun["id"], told["copy"]["id"], one):
        client.databases.delete(each)
    return told | {"after": seen.error(lambda: client.databases.get(one))}
