"""A host that is full, as the client's own retries meet it."""

from __future__ import annotations

import os
import time

import seen

from pandastack import Client


def refused(client, parent: str) -> dict[str, object]:
    """Without patience, the refusal is an error at once."""
    hasty = Client(max_create_retry_seconds=0)
    before = len(client.sandboxes.list())
    return {
        "create": seen.error(lambda: hasty.sandboxes.create("base")),
        "fork": seen.error(lambda: hasty.sandboxes.fork(parent)),
        "fork_tree": seen.error(lambda: hasty.sandboxes.fork_tree(parent, 2)),
        "made": len(client.sandboxes.list()) - before,
    }


def retried(client, filler: str) -> dict[str, object]:
    """The first refusal makes room; a later attempt must then succeed by itself."""
    events: list[dict[str, object]] = []

    def on_retry(event) -> None:
        events.append({"status": event.status_code, "error": event.error, "path": event.path})
        if os.path.exists(filler):  # noqa: PTH110
            os.unlink(filler)  # noqa: PTH108

    patient = Client(on_create_retry=on_retry)
    began = time.monotonic()
    with patient.sandboxes.create("base") as sandbox:
        works = seen.result(sandbox.exec("echo room"))
    return {"events": events, "works": works, "seconds": time.monotonic() - began}
