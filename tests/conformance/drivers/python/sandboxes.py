"""Create, look, delete."""

from __future__ import annotations

import seen

from pandastack import Sandbox


def life(client) -> dict[str, object]:
    """Everything that is done with records."""
    metadata = {"a.b": "c", "secret.key": "hidden"}
    made = client.sandboxes.create("base", ttl_seconds=120, metadata=metadata, cpu=2, memory_mb=1024)
    ready = made.exec("echo ready")
    told = {
        "made": seen.sandbox(made),
        "ready": seen.result(ready),
        "duration_ms": ready.duration_ms,
        "got": seen.sandbox(client.sandboxes.get(made.id)),
        "got_by_class": seen.sandbox(Sandbox.get(made.id)),
        "listed": [each.id for each in client.sandboxes.list()],
        "listed_by_class": [each.id for each in Sandbox.list()],
    }
    client.sandboxes.delete(made.id)
    return told | {
        "get_after": seen.error(lambda: client.sandboxes.get(made.id)),
        "delete_after": seen.error(made.kill),
        "exec_after": seen.error(lambda: made.exec("true")),
    }


def defaults(client) -> dict[str, object]:
    """What a client that names nothing gets; the end of a block deletes what is not persistent."""
    with Sandbox.create() as made:
        refreshed = made.refresh()
        told = {"template": made.template, "persistent": refreshed.persistent}
    with Sandbox.create("base", persistent=True) as kept:
        pass
    still = client.sandboxes.get(kept.id).persistent
    client.sandboxes.delete(kept.id)
    return told | {"gone": seen.error(lambda: client.sandboxes.get(made.id)), "kept": still}


def refusals(client) -> dict[str, object]:
    """What a server refuses, as the caller learns of it."""
    from pandastack import Client

    create = client.sandboxes.create
    stranger = Client(api_url=client.api_url, api_key="pds_" + "0" * 32)
    return {
        "template": seen.error(lambda: create("no-such-template")),
        "ttl": seen.error(lambda: create("base", ttl_seconds=-1)),
        "long_ttl": seen.error(lambda: create("base", ttl_seconds=2**40)),
        "snapshot": seen.error(lambda: create(from_snapshot="00000000-0000-4000-8000-000000000000")),
        "volume": seen.error(lambda: create("base", volumes=[{"name": "none"}])),
        "token": seen.error(stranger.me),
    }
