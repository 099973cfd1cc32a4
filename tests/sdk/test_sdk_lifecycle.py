"""What the methods about a sandbox's life send, and what they make of the answers."""

from __future__ import annotations

from typing import Any

import pytest

from pandastack import (
    AsyncClient,
    AsyncSandbox,
    Checkpoint,
    Client,
    CreateRetryEvent,
    NotFoundError,
    Sandbox,
    ServerError,
)
from pandastack.errors import BadRequestError, ConflictError
from tests.sdk.wire_server import RECORD, Reply, WireServer

HERE = "/v1/sandboxes/0b5f"
CHILD = RECORD | {"id": "c1", "metadata": {"fork_tree_id": "t", "fork_index": "0"}}


@pytest.mark.parametrize(
    ("verb", "reply", "status"),
    [
        ("pause", Reply(204), "paused"),
        ("resume", Reply(204), "running"),
        ("hibernate", Reply(200, {"status": "hibernated"}), "hibernated"),
        ("wake", Reply(200, {"status": "running"}), "running"),
    ],
)
def test_status_follows_the_verb(client: Client, wire: WireServer, verb: str, reply: Reply, status: str) -> None:
    sandbox = Sandbox.from_dict(RECORD | {"status": "unknown"}, client)
    wire.will(reply)
    assert getattr(sandbox, verb)() is None
    assert (wire.lines, wire.asked[0].body, sandbox.status) == ([f"POST {HERE}/{verb}"], b"", status)


def test_a_refused_verb_changes_nothing(sandbox: Sandbox, wire: WireServer) -> None:
    wire.will(Reply(409, {"error": "the sandbox is stopping", "code": "conflict"}))
    with pytest.raises(ConflictError, match="stopping"):
        sandbox.pause()
    assert sandbox.status == "running"


@pytest.mark.parametrize("key", ["id", "snapshot_id"])
def test_snapshot_returns_the_id(sandbox: Sandbox, wire: WireServer, key: str) -> None:
    wire.will(Reply(201, {key: "s1"}))
    assert sandbox.snapshot() == "s1"
    assert wire.lines == [f"POST {HERE}/snapshots"]


def test_a_snapshot_without_an_id_is_not_a_success(sandbox: Sandbox, wire: WireServer) -> None:
    wire.will(Reply(201, {}))
    with pytest.raises(ServerError, match="no id"):
        sandbox.snapshot()


@pytest.mark.parametrize(("timeout", "silence"), [(30.0, 180.0), (400.0, 400.0)])
def test_captures_may_be_silent_for_long(timeout: float, silence: float) -> None:
    with Client("http://127.0.0.1:1", "k", timeout=timeout) as client:
        assert Sandbox.from_dict(RECORD, client)._capture("/snapshots").silence == silence


@pytest.mark.parametrize(
    "answer",
    [{"sandbox": CHILD, "children": ["c1"]}, {"children": [CHILD]}, CHILD],
)
def test_fork_reads_every_form_of_answer(sandbox: Sandbox, client: Client, wire: WireServer, answer: Any) -> None:
    wire.will(Reply(201, answer), Reply(201, answer))
    child = sandbox.fork({"a": "b"})
    assert (child.id, child.template, child.status) == ("c1", "base", "running")
    assert child.metadata == {"fork_tree_id": "t", "fork_index": "0", "fork_parent_id": "0b5f"}
    assert client.sandboxes.fork("0b5f") == child
    assert wire.lines == [f"POST {HERE}/fork"] * 2
    assert (wire.asked[0].json(), wire.asked[1].body) == ({"metadata": {"a": "b"}}, b"")


def test_fork_takes_a_bare_id(sandbox: Sandbox, wire: WireServer) -> None:
    wire.will(Reply(201, {"children": ["c1"]}))
    child = sandbox.fork()
    assert (child.id, child.status, child.metadata) == ("c1", "running", {"fork_parent_id": "0b5f"})


@pytest.mark.parametrize("answer", [{}, [], {"children": []}])
def test_a_fork_without_a_child_is_not_a_success(sandbox: Sandbox, wire: WireServer, answer: Any) -> None:
    wire.will(Reply(201, answer))
    with pytest.raises(ServerError, match="names no sandbox"):
        sandbox.fork()


@pytest.mark.parametrize("key", ["children", "items", "sandboxes", None])
def test_fork_tree_reads_every_form_of_answer(
    sandbox: Sandbox, client: Client, wire: WireServer, key: str | None
) -> None:
    children = [CHILD, "c2"]
    answer = children if key is None else {"tree_id": "t", key: children}
    wire.will(Reply(201, answer), Reply(201, answer))
    assert [each.id for each in sandbox.fork_tree(2, {"a": "b"})] == ["c1", "c2"]
    assert [each.id for each in client.sandboxes.fork_tree("0b5f", count=3)] == ["c1", "c2"]
    assert [each.json() for each in wire.asked] == [{"count": 2, "metadata": {"a": "b"}}, {"count": 3}]
    assert wire.lines == [f"POST {HERE}/fork-tree"] * 2


def test_forks_belong_to_the_class_they_came_from(client: Client, wire: WireServer) -> None:
    class Mine(Sandbox):
        pass

    wire.will(Reply(201, CHILD), Reply(201, [CHILD]))
    parent = Mine.from_dict(RECORD, client)
    assert [type(each) for each in (parent.fork(), *parent.fork_tree(1))] == [Mine, Mine]


def test_a_refused_fork_is_repeated(wire: WireServer) -> None:
    events: list[CreateRetryEvent] = []
    refusal = Reply(503, {"error": "sandbox host unavailable"}, {"Retry-After": "0"})
    wire.will(refusal, Reply(201, CHILD), refusal, Reply(201, [CHILD]))
    with Client(wire.url, "k", on_create_retry=events.append) as client:
        assert client.sandboxes.fork("0b5f").id == client.sandboxes.fork_tree("0b5f", 1)[0].id == "c1"
    assert [each.path for each in events] == ["/sandboxes/0b5f/fork", "/sandboxes/0b5f/fork-tree"]


def test_promote(sandbox: Sandbox, wire: WireServer) -> None:
    answer = {"winner": "0b5f", "tree_id": "t", "deleted": ["c2"], "failures": {}}
    wire.will(Reply(200, answer), Reply(200, answer))
    assert sandbox.promote() == sandbox.promote(cleanup_siblings=True, tree_id="t") == answer
    assert [each.json() for each in wire.asked] == [
        {"cleanup_siblings": False},
        {"cleanup_siblings": True, "tree_id": "t"},
    ]


def test_snapshots(client: Client, wire: WireServer) -> None:
    record = {"id": "s1", "sandbox_id": "0b5f", "template": "base", "size_bytes": 7, "created_at": "now"}
    wire.will(Reply(200, {"snapshots": [record]}), Reply(200, [record]), Reply(200, record), Reply(204))
    assert client.snapshots.list() == client.snapshots.list(sandbox_id="0b5f") == [client.snapshots.get("s1")]
    assert client.snapshots.delete("s/1") is None
    assert wire.lines == [
        "GET /v1/snapshots",
        "GET /v1/snapshots?sandbox_id=0b5f",
        "GET /v1/snapshots/s1",
        "DELETE /v1/snapshots/s%2F1",
    ]


def test_an_empty_snapshot_id_never_names_the_collection(client: Client) -> None:
    with pytest.raises(BadRequestError, match="empty"):
        client.snapshots.delete("")


def test_checkpoints(sandbox: Sandbox, wire: WireServer) -> None:
    record = {"id": "k1", "created_at": "now", "label": "clean", "size_bytes": 9, "dirty_bytes": 4, "new": 1}
    wire.will(Reply(201, record), Reply(201, {"id": "k2"}), Reply(200, {"checkpoints": [record]}))
    made = sandbox.checkpoint("clean")
    assert made == Checkpoint("k1", "now", "clean", 9, 4)
    assert sandbox.checkpoint() == Checkpoint("k2")
    assert sandbox.timeline() == [made]
    assert [each.body for each in wire.asked] == [b'{"label":"clean"}', b"{}", b""]
    assert wire.lines == [f"POST {HERE}/checkpoints"] * 2 + [f"GET {HERE}/checkpoints"]


def test_a_checkpoint_says_what_ran(sandbox: Sandbox, wire: WireServer) -> None:
    wire.will(Reply(201, {"id": "k1", "automatic": True, "commands": ["a", "b"], "command_count": 7}))
    made = sandbox.checkpoint()
    assert (made.automatic, made.commands, made.command_count) == (True, ("a", "b"), 7)


def test_forking_and_deleting_checkpoints(sandbox: Sandbox, wire: WireServer) -> None:
    wire.will(Reply(201, RECORD | {"id": "c1"}), Reply(204), Reply(404, {"error": "gone"}), Reply(404, {}))
    assert sandbox.fork_checkpoint("k1", {"a": "b"}).id == "c1"
    sandbox.delete_checkpoint("k1")
    with pytest.raises(NotFoundError):
        sandbox.delete_checkpoint("k1")
    assert wire.lines[:2] == [f"POST {HERE}/checkpoints/k1/fork", f"DELETE {HERE}/checkpoints/k1"]
    assert wire.asked[0].json() == {"metadata": {"a": "b"}}


def test_what_a_create_says_of_the_life(client: Client, wire: WireServer) -> None:
    wire.will(Reply(201, RECORD))
    client.sandboxes.create("base", on_expire="hibernate", checkpoint_every=60, checkpoint_after_exec=True)
    own = {"on_expire": "hibernate", "checkpoint_every": 60, "checkpoint_after_exec": True}
    assert wire.asked[0].json() == {"template": "base", **own}


def test_rewind_updates_in_place(client: Client, wire: WireServer) -> None:
    sandbox = Sandbox.from_dict(RECORD | {"status": "paused"}, client)
    wire.will(Reply(200, RECORD | {"metadata": {"a": "b"}}))
    assert sandbox.rewind("k1") is sandbox
    assert (sandbox.status, sandbox.metadata, sandbox.client) == ("running", {"a": "b"}, client)
    assert wire.lines == [f"POST {HERE}/checkpoints/k1/rewind"]


def test_set_lifecycle_sends_only_what_was_given(sandbox: Sandbox, wire: WireServer) -> None:
    wire.will(Reply(200, {"ttl_seconds": 0}), Reply(200, {}))
    assert sandbox.set_lifecycle(ttl_seconds=0, on_expire="hibernate") == {"ttl_seconds": 0}
    assert sandbox.persistent is False
    sandbox.set_lifecycle(persistent=True, checkpoint_every=60)
    assert sandbox.persistent is True
    assert [each.json() for each in wire.asked] == [
        {"ttl_seconds": 0, "on_expire": "hibernate"},
        {"persistent": True, "checkpoint_every": 60},
    ]


async def test_the_waiting_client_does_the_same(async_client: AsyncClient, wire: WireServer) -> None:
    sandbox = AsyncSandbox.from_dict(RECORD, async_client)
    wire.will(Reply(204), Reply(201, CHILD), Reply(200, {"checkpoints": [{"id": "k1"}]}), Reply(200, RECORD))
    wire.will(Reply(200, {"snapshots": []}))
    async with async_client:
        await sandbox.pause()
        assert sandbox.status == "paused"
        assert (await sandbox.fork()).id == "c1"
        (checkpoint,) = await sandbox.timeline()
        assert await sandbox.rewind(checkpoint.id) is sandbox
        assert await async_client.snapshots.list() == []
