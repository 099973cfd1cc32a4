"""What differs between real sandboxes, over the public API, the SDK and the command line."""

from __future__ import annotations

import concurrent.futures
import json

import httpx
import pytest

from pandastack import BadRequestError, Client, NotFoundError
from tests.support.installation import Create, Server


def test_since_a_checkpoint_and_between_two(client: Client, create: Create) -> None:
    sandbox = create()
    sandbox.filesystem.write("/workspace/a.txt", "one\ntwo\n")
    first = sandbox.checkpoint("first")
    sandbox.exec("cd /workspace; echo three >> a.txt; echo b > b; rm -r /etc/apt; dd if=/dev/zero of=big bs=1M count=3")
    second = sandbox.checkpoint("second")
    sandbox.exec("cd /workspace; tr '\\0' x < big > big2; mv big2 big; rm b", check=True)
    found = sandbox.diff(first.id, second.id, patch=True)
    assert {each.path: each.change for each in found.changes} == {
        "/etc/apt": "removed",
        "/workspace/a.txt": "changed",
        "/workspace/b": "added",
        "/workspace/big": "added",
    }
    assert "+three\n" in found.patch() and "/workspace/big" not in found.patch()
    assert (found.added, found.removed, found.changed, found.truncated) == (2, 1, 1, False)
    since = sandbox.diff(second.id)
    assert {each.path: (each.change, each.what) for each in since.changes} == {
        "/workspace/b": ("removed", ()),
        "/workspace/big": ("changed", ("content",)),
    }
    assert {each.id for each in client.sandboxes.list()} >= {sandbox.id}
    sandbox.rewind(second.id)
    assert sandbox.diff(second.id).changes == ()


def test_try_several_and_compare(create: Create) -> None:
    parent = create()
    parent.exec("echo start > /workspace/result", check=True)
    children = parent.fork_tree(2)
    try:
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda n: children[n].exec(f"echo try{n} > /workspace/result", check=True), range(2)))
        found = children[1].diff(children[0].id, patch=True)
        assert [(each.path, each.what) for each in found.changes] == [("/workspace/result", ("content",))]
        assert "-try0\n+try1\n" in found.patch()
        assert [each.path for each in children[0].diff(parent.id).changes] == ["/workspace/result"]
    finally:
        for each in children:
            each.kill()


def test_a_hostile_guest_gets_a_clear_refusal_and_harms_nobody(http: httpx.Client, create: Create) -> None:
    sandbox, other = create(), create()
    sandbox.exec("d=/root; for i in $(seq 200); do d=$d/d; mkdir $d; done", check=True)
    with pytest.raises(BadRequestError, match="nested too deeply"):
        sandbox.diff()
    sandbox.exec("rm -r /root/d; ln -s /etc/passwd '/root/new\nline'; mkfifo /root/fifo; touch /root/$(printf '\\377')")
    assert {each.path for each in sandbox.diff().changes} >= {"/root/fifo", "/root/\\xff"}
    with pytest.raises(NotFoundError):
        sandbox.diff("no-such-checkpoint")
    refused = http.get(f"/sandboxes/{sandbox.id}/diff", params={"from": "now", "to": "now"})
    assert (refused.status_code, refused.json()["field"]) == (400, "to")
    assert other.diff().changes == ()


def test_from_the_command_line(server: Server, create: Create) -> None:
    sandbox = create()
    place = server.installation
    sandbox.exec("echo new > /workspace/new", check=True)
    done = place.cli("sandbox", "diff", sandbox.id)
    assert (done.returncode, done.stdout.split()[-5:]) == (0, ["+", "/workspace/new", "file", "4", "-"]), done.stderr
    shown = json.loads(place.cli("sandbox", "diff", sandbox.id, "--patch", "--json").stdout)
    assert shown["changes"][0]["patch"].endswith("+new\n")
    checkpoint = place.cli("sandbox", "checkpoint", sandbox.id).stdout.strip()
    other = place.cli("sandbox", "fork", sandbox.id, "--checkpoint", checkpoint).stdout.strip()
    assert place.cli("sandbox", "exec", other, "cat /workspace/new").stdout == "new\n"
    assert place.cli("sandbox", "delete-checkpoint", sandbox.id, checkpoint).returncode == 0
    assert place.json("sandbox", "timeline", sandbox.id) == []
    assert place.cli("sandbox", "delete", other).returncode == 0
