"""Changes of files are told as they happen, by a program of the guest that is not believed."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from pandastack import Sandbox
from tests.support.installation import Create, Server, eventually


@contextmanager
def watching(http: httpx.Client, sandbox: Sandbox, path: str, **options: str) -> Iterator[Iterator[dict[str, Any]]]:
    """The changes of a path, from the moment on that none is missed."""
    with http.stream("GET", f"/sandboxes/{sandbox.id}/fs/watch", params={"path": path, **options}) as answer:
        assert answer.status_code == 200, answer.read()
        changes = _changes(answer.iter_lines())
        assert next(changes) == {"type": "ready", "path": path, "is_dir": False}
        yield changes


def _changes(lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    """Signs of life come all the time: somebody who waits for a change that never comes must look at the clock."""
    patience = time.monotonic() + 60
    for line in lines:
        if line.startswith("data: "):
            yield json.loads(line.removeprefix("data: "))
        assert time.monotonic() < patience, "no more changes"


def until(changes: Iterator[dict[str, Any]], path: str) -> set[tuple[str, str, bool]]:
    """What was told up to the creation of ``path``."""
    told: set[tuple[str, str, bool]] = set()
    for each in changes:
        if each.get("path") == path:
            return told
        told.add((each["type"], each["path"], each["is_dir"]))
    raise AssertionError(f"the changes ended: {told}")


def test_everything_below_a_directory(http: httpx.Client, create: Create) -> None:
    sandbox = create()
    sandbox.exec("mkdir -p /srv/w/old && echo 1 > /srv/w/old/file", check=True)
    with watching(http, sandbox, "/srv/w", recursive="1") as changes:
        sandbox.exec("cd /srv/w && mkdir -p new/deep && echo 2 > new/deep/ü && : > mark1", check=True)
        told = until(changes, "/srv/w/mark1")
        assert {("created", "/srv/w/new", True), ("created", "/srv/w/new/deep", True)} <= told
        assert ("created", "/srv/w/new/deep/ü", False) in told
        sandbox.exec("cd /srv/w && echo 3 >> old/file && chmod 600 old/file && rm new/deep/ü && : > mark2", check=True)
        told = until(changes, "/srv/w/mark2")
        assert {("modified", "/srv/w/old/file", False), ("attributes", "/srv/w/old/file", False)} <= told
        assert ("deleted", "/srv/w/new/deep/ü", False) in told
        sandbox.exec("cd /srv/w && mv old renamed && : > mark3", check=True)
        moved = next(each for each in changes if each["type"] == "moved")
        assert (moved["from"], moved["path"], moved["is_dir"]) == ("/srv/w/old", "/srv/w/renamed", True)
        until(changes, "/srv/w/mark3")
        sandbox.exec("echo 4 > /srv/w/renamed/file && : > /srv/w/mark4", check=True)
        assert ("modified", "/srv/w/renamed/file", False) in until(changes, "/srv/w/mark4")
        sandbox.exec("rm -r /srv/w", check=True)
        assert list(changes)[-1] == {"type": "deleted", "path": "/srv/w", "is_dir": False}


def test_the_same_over_a_socket(server: Server, create: Create) -> None:
    sandbox = create()
    url = f"ws{server.url.removeprefix('http')}/v1/sandboxes/{sandbox.id}/fs/watch?recursive=1&path="
    token = {"Authorization": f"Bearer {server.token}"}
    for path, status in (("/nowhere", 404), ("relative", 400)):
        with pytest.raises(InvalidStatus) as refused:
            connect(url + path, additional_headers=token)
        assert refused.value.response.status_code == status
    sandbox.exec("mkdir /srv/w", check=True)
    with connect(url + "/srv/w", additional_headers=token) as socket:
        assert json.loads(socket.recv(60)) == {"type": "ready", "path": "/srv/w", "is_dir": False}
        sandbox.exec("mkdir /srv/w/new && rm -r /srv/w", check=True)
        told = [json.loads(frame) for frame in socket]
    assert {"type": "created", "path": "/srv/w/new", "is_dir": True} in told
    assert told[-1] == {"type": "deleted", "path": "/srv/w", "is_dir": False}


def test_one_directory_alone(http: httpx.Client, create: Create) -> None:
    sandbox = create()
    sandbox.exec("mkdir -p /srv/one/below", check=True)
    with watching(http, sandbox, "/srv/one") as changes:
        sandbox.exec("echo 1 > /srv/one/below/file; echo 2 > /srv/one/file; : > /srv/one/mark", check=True)
        told = until(changes, "/srv/one/mark")
        assert ("created", "/srv/one/file", False) in told
        assert not any("below/file" in path for _, path, _ in told)
    eventually(lambda: sandbox.exec("pgrep -cx python3").stdout == "0\n", 60, "the watch has ended in the guest, too")


def test_what_cannot_be_watched(http: httpx.Client, sandbox: Sandbox, create: Create) -> None:
    url = f"/sandboxes/{sandbox.id}/fs/watch"
    assert http.get(url, params={"path": "/no/such"}).status_code == 404
    assert http.get(url, params={"path": "relative"}).json()["field"] == "path"
    bare = create()
    bare.exec("rm /usr/bin/python3", check=True)
    refused = http.get(f"/sandboxes/{bare.id}/fs/watch", params={"path": "/srv"})
    assert refused.status_code == 400 and "needs python3" in refused.json()["error"]


@pytest.mark.parametrize("said", ["nonsense", '{"type": "explode"}', "[1]", '"' + "x" * 100_000])
def test_a_hostile_guests_program_is_not_believed(http: httpx.Client, create: Create, said: str) -> None:
    guest = create()
    guest.filesystem.write("/root/said", said)
    guest.exec("rm /usr/bin/python3", check=True)
    guest.filesystem.write("/usr/bin/python3", "#!/bin/sh\ncat /root/said; echo; exec sleep 60\n")
    guest.exec("chmod 755 /usr/bin/python3", check=True)
    refused = http.get(f"/sandboxes/{guest.id}/fs/watch", params={"path": "/srv"})
    assert refused.status_code == 502 and "watch" in refused.json()["error"]
