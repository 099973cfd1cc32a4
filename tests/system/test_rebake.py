"""A template that this host would bake differently is baked again while what runs keeps its version."""

from __future__ import annotations

import json
import shutil
import uuid
from pathlib import Path
from typing import Any

import httpx
import pytest

from pandastack import config
from tests.support.installation import Installation, eventually, serving
from tests.support.machines import pid_of

pytestmark = pytest.mark.slow  # a whole bake, twice begun


def template(http: httpx.Client) -> dict[str, Any]:
    found: dict[str, Any] = http.get("/templates/base").json()["meta"]
    return found


def make_old(place: Installation, command: str) -> str:
    """Make the installed version of base one that another VMM baked, from other commands; returns its key."""
    record = place.layout.templates / "base.json"
    values, old = json.loads(record.read_text()), uuid.uuid4().hex * 2
    snapshots = place.layout.engine / "pool" / "snapshots"
    manifest = snapshots / old / "manifest.json"
    (snapshots / values["version"]).rename(snapshots / old)
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "key": old, "vmm": "QEMU 0.1"}))
    changed = {**values, "version": old, "warm_up": [*values["warm_up"], command]}
    temporary = record.with_name(".base.new")
    temporary.write_text(json.dumps(changed))
    temporary.rename(record)
    return old


def test_a_stale_template_is_baked_again_although_the_server_is_killed(place: Installation) -> None:
    with serving(place) as (server, client), server.http() as http:
        kept = client.sandboxes.create("base", persistent=True)
        kept.exec("echo kept > /root/file", check=True)
        assert (template(http)["state"], template(http)["state_reason"]) == ("current", None)
        old = make_old(place, f"true {uuid.uuid4()}")
        assert template(http)["state"] == "stale"
        assert "was made with vmm QEMU 0.1" in template(http)["state_reason"]

    with serving(place, PANDASTACK_REBAKE="on") as (server, client), server.http() as http:
        assert client.sandboxes.get(kept.id).exec("cat /root/file", check=True).stdout == "kept\n"
        pid = pid_of(http, kept)
        eventually(lambda: template(http)["state"] == "rebaking", 60, "it is baked again")
        assert template(http)["state_reason"].startswith("it was baked with VMM QEMU 0.1, this host has")
        refused = http.post("/sandboxes", json={"template": "base", "on_memory_loss": "fail"})
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "15")
        assert refused.json()["error"].startswith("template base is being baked again: ")
        assert template(http)["key"] == old
        server.kill()

    with serving(place, PANDASTACK_REBAKE="on") as (server, client), server.http() as http:
        assert client.sandboxes.get(kept.id).exec("cat /root/file", check=True).stdout == "kept\n"
        assert pid_of(http, kept) == pid
        eventually(lambda: template(http)["state"] == "current", 120, "the new version is there")
        new = template(http)["key"]
        assert new != old
        statuses = [each["status"] for each in http.get("/templates/builds").json()]
        assert statuses[:2] == ["done", "failed"]
        made = client.sandboxes.create("base", on_memory_loss="fail")
        assert made.exec("uname", check=True).stdout == "Linux\n"
        assert pid_of(http, kept) == pid
        client.sandboxes.get(kept.id).kill()
        made.kill()
        shutil.rmtree(config.cache_dir() / "baked" / new)  # no other run has use for it
    assert place.left_behind() == []
    assert list(Path(place.layout.cache / "work").glob("*bake*")) == []
