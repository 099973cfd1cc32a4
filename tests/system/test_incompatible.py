"""A snapshot that was made elsewhere is refused, with the difference, before anything is done: a rewind to it, and
copies for those who want its memory or nothing (tests/system/test_boot.py has the others)."""

from __future__ import annotations

import json

import httpx
import pytest

from pandastack import Client
from tests.support.installation import Create, Server


@pytest.mark.parametrize(("field", "value"), [("vmm", "QEMU 99.0"), ("cpu_flags", "0" * 16), ("format", 999)])
def test_a_snapshot_of_another_host_is_refused(
    server: Server, client: Client, http: httpx.Client, create: Create, field: str, value: object
) -> None:
    sandbox = create()
    sandbox.exec("echo then > /root/file", check=True)
    snapshot, checkpoint = sandbox.snapshot(), sandbox.checkpoint()
    sandbox.exec("echo now > /root/file", check=True)
    saved = server.installation.layout.engine / "pool" / "saved"
    for name in (snapshot, checkpoint.id):
        manifest = saved / name / "manifest.json"
        manifest.write_text(json.dumps({**json.loads(manifest.read_text()), field: value}))
    before, machines = {each.id for each in client.sandboxes.list()}, set(server.installation.machines())
    for path, body in (
        ("/sandboxes", {"from_snapshot": snapshot, "on_memory_loss": "fail"}),
        (f"/sandboxes/{sandbox.id}/checkpoints/{checkpoint.id}/rewind", None),
    ):
        answer = http.post(path, json=body)
        assert answer.status_code == 409, answer.text
        assert f"was made with {field} {value}, this host has" in answer.json()["error"]
        assert (
            answer.json()["hint"]
            == "its programs need the VMM and CPU of its capture: restore it on such a host, or delete it"
        )
    assert {each.id for each in client.sandboxes.list()} == before
    assert machines <= set(server.installation.machines())
    assert sandbox.exec("cat /root/file", check=True).stdout == "now\n"
    client.snapshots.delete(snapshot)
