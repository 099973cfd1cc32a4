"""Lifecycle, snapshots and copies of real sandboxes over the public API: copies differ where they must."""

from __future__ import annotations

import concurrent.futures
import time
from datetime import datetime

import httpx
import pytest

from pandastack import BadRequestError, Client, NotFoundError, Sandbox
from tests.support.installation import Create, Server, eventually
from tests.support.programs import COUNTER


def status(http: httpx.Client, sandbox: Sandbox) -> str:
    return str(http.get(f"/sandboxes/{sandbox.id}").json()["status"])


def kinds(http: httpx.Client, sandbox: Sandbox) -> list[str]:
    return [each["type"] for each in http.get(f"/sandboxes/{sandbox.id}/events?tail=0").json()["events"]]


def test_ten_times_to_sleep_and_back(http: httpx.Client, create: Create) -> None:
    sandbox = create(persistent=True)
    sandbox.exec(COUNTER, check=True)
    for turn in range(10):
        sandbox.filesystem.write(f"/root/{turn}", str(turn))
        if turn % 2:
            sandbox.exec("sync", check=True)
        sandbox.hibernate()
        assert status(http, sandbox) == "hibernated"
        assert sandbox.exec("cat /root/? | tr -d '\\n'", check=True).stdout == "".join(map(str, range(turn + 1)))
        assert status(http, sandbox) == "running"
    before = int(sandbox.exec("cat /run/counter").stdout)
    assert int(sandbox.exec("sleep 0.3; cat /run/counter").stdout) > before
    assert kinds(http, sandbox).count("sandbox.hibernated") == kinds(http, sandbox).count("sandbox.woken") == 10


def test_reads_of_the_record_do_not_wake(http: httpx.Client, create: Create) -> None:
    sandbox = create(persistent=True)
    sandbox.hibernate()
    sandbox.hibernate()
    for path in ("", "/lifecycle", "/events"):
        assert http.get(f"/sandboxes/{sandbox.id}{path}").status_code == 200
    assert sandbox.id in {each["id"] for each in http.get("/sandboxes").json()}
    assert status(http, sandbox) == "hibernated"
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        said = list(pool.map(lambda n: sandbox.exec(f"echo {n}").stdout, range(4)))
    assert said == ["0\n", "1\n", "2\n", "3\n"]
    assert kinds(http, sandbox).count("sandbox.woken") == 1
    sandbox.wake()
    sandbox.hibernate()
    sandbox.kill()
    with pytest.raises(NotFoundError):
        sandbox.refresh()


def test_a_paused_sandbox_refuses_at_once(http: httpx.Client, create: Create) -> None:
    sandbox = create()
    sandbox.exec(COUNTER, check=True)
    sandbox.pause()
    assert http.post(f"/sandboxes/{sandbox.id}/exec", json={"cmd": "true"}, timeout=30).status_code == 409
    assert http.get(f"/sandboxes/{sandbox.id}/fs", params={"path": "/etc/hosts"}, timeout=30).status_code == 409
    sandbox.resume()
    sandbox.resume()
    assert sandbox.exec("echo on").stdout == "on\n"


def test_a_snapshot_starts_any_number_of_sandboxes_after_its_source_is_gone(client: Client, create: Create) -> None:
    source = create()
    source.exec("echo then > /root/file; echo in-memory > /run/file", check=True)
    snapshot = source.snapshot()
    source.exec("echo later > /root/file", check=True)
    assert source.exec("cat /root/file").stdout == "later\n"
    source.kill()
    assert snapshot in [each["id"] for each in client.snapshots.list()]
    made = [create("no-such-template", from_snapshot=snapshot) for _ in range(3)]
    assert [each.exec("cat /root/file /run/file", check=True).stdout for each in made] == ["then\nin-memory\n"] * 3
    client.snapshots.delete(snapshot)
    with pytest.raises((NotFoundError, BadRequestError)):
        create(from_snapshot=snapshot)
    assert made[0].exec("cat /root/file; md5sum /usr/bin/* | wc -l", check=True).stdout.startswith("then\n")


def test_copies_differ_where_they_must(create: Create) -> None:
    parent = create()
    parent.exec("echo shared > /root/file", check=True)
    children = parent.fork_tree(3)
    try:
        look = "head -c 16 /dev/urandom | base64; cat /proc/sys/kernel/random/uuid /etc/machine-id; hostname; mktemp -u"
        seen = [each.exec(look, check=True).stdout.splitlines() for each in (parent, *children)]
        for each in zip(*seen, strict=True):
            assert len(set(each)) == 4, each
        assert {each.exec("cat /root/file").stdout for each in children} == {"shared\n"}
        children[0].exec("echo mine > /root/file", check=True)
        assert {each.exec("cat /root/file").stdout for each in (parent, *children[1:])} == {"shared\n"}
    finally:
        for each in children:
            each.kill()


def test_a_child_does_not_see_the_commands_of_its_parent(http: httpx.Client, create: Create) -> None:
    """What runs in the parent while it is forked goes on in both; its output and outcome are the parent's alone."""
    parent = create()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        running = pool.submit(parent.exec, "for i in 1 2 3 4 5 6; do echo $i; sleep 0.5; done; exit 7")
        time.sleep(1)  # in the middle of the command, which is what is tested
        child = parent.fork()
        assert child.exec("echo mine").stdout == "mine\n"
        child.kill()
        done = running.result(30)
    assert (done.stdout.split(), done.exit_code) == (list("123456"), 7)


def test_a_woken_clock_is_right(http: httpx.Client, create: Create) -> None:
    """Two copies of one snapshot whose guest believes in another year."""
    parent = create()
    parent.exec("date -s 2001-01-01", check=True)
    parent.exec("python3 -V")
    child = parent.fork()
    parent.hibernate()
    for each in (parent, child):
        each.exec("true", check=True)
        before = time.time()
        guest = float(each.exec("date +%s.%N", check=True).stdout)
        assert before - 0.1 <= guest <= time.time() + 0.1
    child.kill()


def test_a_fork_inherits_and_says_whose_it_is(http: httpx.Client, create: Create) -> None:
    parent = create(metadata={"a": "1", "b": "1"}, ttl_seconds=120)
    child = parent.fork(metadata={"b": "2"})
    assert (child.metadata["a"], child.metadata["b"], child.metadata["fork_parent_id"]) == ("1", "2", parent.id)
    assert http.get(f"/sandboxes/{child.id}/lifecycle").json()["ttl_seconds"] == 120
    grandchild = child.fork()
    assert grandchild.metadata["fork_parent_id"] == child.id
    refused = http.post(f"/sandboxes/{parent.id}/fork-tree", json={"count": 17})
    assert (refused.status_code, "count" in refused.json()["error"]) == (400, True)
    assert http.post(f"/sandboxes/{parent.id}/fork", content=b"").status_code == 201
    for each in http.get("/sandboxes").json():
        if each["metadata"].get("fork_parent_id") in (parent.id, child.id):
            http.delete(f"/sandboxes/{each['id']}")


def test_the_timeline(http: httpx.Client, create: Create) -> None:
    sandbox = create()
    sandbox.exec("echo good > /root/file", check=True)
    kept = sandbox.checkpoint("before the mess")
    sandbox.exec("rm -rf /root/file /etc/passwd", check=True)
    named = sandbox.checkpoint()
    timeline = sandbox.timeline()
    assert [each.label for each in timeline] == ["before the mess", "rm -rf /root/file /etc/passwd"]
    assert [each.id for each in timeline] == [kept.id, named.id] and all(each.size_bytes > 0 for each in timeline)
    forked = http.post(f"/sandboxes/{sandbox.id}/checkpoints/{kept.id}/fork").json()
    sandbox.rewind(kept.id)
    assert sandbox.exec("cat /root/file; wc -l < /etc/passwd", check=True).stdout.startswith("good\n")
    assert http.post(f"/sandboxes/{forked['id']}/exec", json={"cmd": "cat /root/file"}).json()["stdout"] == "good\n"
    assert http.delete(f"/sandboxes/{forked['id']}").status_code == 204
    assert http.post(f"/sandboxes/{sandbox.id}/checkpoints/none/rewind").status_code == 404


def test_automatic_checkpoints_follow_what_ran(http: httpx.Client) -> None:
    made = http.post("/sandboxes", json={"template": "base", "checkpoint_every": 1}).json()
    url = f"/sandboxes/{made['id']}"
    try:
        http.post(f"{url}/exec", json={"cmd": "echo first"})
        found = eventually(lambda: http.get(f"{url}/checkpoints").json()["checkpoints"], 60, "a checkpoint is taken")
        assert found[0]["label"] == "echo first"
    finally:
        http.delete(url)


def test_a_checkpoint_after_each_command_leads_back_to_it(http: httpx.Client, create: Create) -> None:
    sandbox = create(checkpoint_after_exec=True)
    for number in ("one", "two"):
        sandbox.exec(f"echo {number} > /root/file", check=True)
        wanted = f"echo {number} > /root/file"
        eventually(lambda wanted=wanted: wanted in [each.label for each in sandbox.timeline()], 60, "it is taken")
    first, second = sandbox.timeline()
    assert (first.commands, second.commands) == (("echo one > /root/file",), ("echo two > /root/file",))
    assert first.automatic and first.size_bytes > 0
    sandbox.set_lifecycle(checkpoint_after_exec=False)
    other = sandbox.fork_checkpoint(first.id)
    assert other.exec("cat /root/file", check=True).stdout == "one\n"
    other.kill()
    assert sandbox.rewind(first.id).exec("cat /root/file", check=True).stdout == "one\n"
    sandbox.delete_checkpoint(first.id)
    assert [each.id for each in sandbox.timeline()] == [second.id]


def test_a_burst_of_commands_becomes_one_checkpoint_and_none_waits_for_it(create: Create) -> None:
    sandbox = create(checkpoint_after_exec=True)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        said = list(pool.map(lambda n: sandbox.exec(f"echo {n}", check=True).stdout, range(12)))
    assert said == [f"{number}\n" for number in range(12)]
    listed = lambda: sum(each.command_count for each in sandbox.timeline())  # noqa: E731
    eventually(lambda: listed() == 12, 20, "every command is in a checkpoint")
    assert len(sandbox.timeline()) < 6


def test_an_idle_sandbox_can_be_hibernated_instead_of_deleted(http: httpx.Client) -> None:
    made = http.post("/sandboxes", json={"template": "base", "ttl_seconds": 1, "on_expire": "hibernate"}).json()
    url = f"/sandboxes/{made['id']}"
    assert datetime.fromisoformat(made["expires_at"]).timestamp() > time.time() - 1
    eventually(lambda: http.get(url).json()["status"] == "hibernated", 60, "it is hibernated")
    assert http.post(f"{url}/exec", json={"cmd": "echo awake"}).json()["stdout"] == "awake\n"
    assert http.delete(url).status_code == 204


def test_deleting_a_paused_or_hibernated_sandbox_leaves_nothing(server: Server, create: Create) -> None:
    asleep, paused = create(persistent=True), create()
    asleep.hibernate()
    paused.pause()
    shelf = server.installation.layout.engine / "pool" / "asleep"
    assert (shelf / asleep.id).exists()
    asleep.kill()
    paused.kill()
    assert not (shelf / asleep.id).exists()
