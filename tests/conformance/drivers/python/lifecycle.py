"""Pause, hibernate, idle limits, console."""

from __future__ import annotations

import itertools

import seen


def sleep_and_wake(client) -> dict[str, object]:
    with client.sandboxes.create("base", metadata={"a": "b"}) as sandbox:
        sandbox.exec("setsid sleep 600 </dev/null >/dev/null 2>&1 & echo kept > /root/file", check=True)
        status: list[str] = []

        def look() -> None:
            status.append(client.sandboxes.get(sandbox.id).status)

        for step in (sandbox.resume, sandbox.pause, sandbox.pause):
            step()
            look()
        paused = seen.error(lambda: sandbox.exec("true"))
        for step in (sandbox.resume, sandbox.hibernate, sandbox.hibernate):
            step()
            look()
        sandbox.lifecycle()
        look()
        used = seen.result(sandbox.exec("cat /root/file; pgrep -cx sleep"))
        look()
        sandbox.wake()
        sandbox.hibernate()
        sandbox.wake()
        look()
        record = client.sandboxes.get(sandbox.id)
        return {"status": status, "paused": paused, "used": used, "metadata": record.metadata}


def limits(client) -> dict[str, object]:
    with client.sandboxes.create("base", ttl_seconds=240) as sandbox:
        first = sandbox.lifecycle()
        return {
            "first": first,
            "ttl": sandbox.set_ttl(120),
            "persistent": [sandbox.set_persistent(True), sandbox.set_persistent(False)],
            "negative": seen.error(lambda: sandbox.set_ttl(-1)),
        }


def console(client) -> dict[str, object]:
    with client.sandboxes.create("base") as sandbox:
        sandbox.exec("echo 'to the console ü' > /dev/console; echo second > /dev/console", check=True)
        lines = list(sandbox.logs())
        followed = list(itertools.islice(sandbox.logs(stream="stdout", follow=True), 2))
        return {"lines": lines, "followed": followed}


def preview(client) -> dict[str, object]:
    client.preview_host = "preview.test"
    with client.sandboxes.create("base") as sandbox:
        return {"id": sandbox.id, "url": sandbox.preview_url(8000), "urls": str(sandbox.preview_urls())}
