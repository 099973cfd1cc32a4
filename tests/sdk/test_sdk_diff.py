"""``sandbox.diff``: what is asked, and the values that the answer becomes."""

from __future__ import annotations

import pytest

from pandastack import AsyncClient, AsyncSandbox, BadRequestError, Diff, FileChange, FileState, Sandbox
from tests.sdk.wire_server import RECORD, Reply, WireServer

FILE = {"kind": "file", "size": 3, "mode": "-rw-r--r--", "uid": 0, "gid": 0, "mtime": 1.5}
CHANGES = [
    {"path": "/a", "kind": "file", "change": "added", "what": [], "before": None, "after": FILE, "patch": "+a\n"},
    {
        "path": "/b",
        "kind": "file",
        "change": "changed",
        "what": ["content"],
        "before": FILE,
        "after": FILE,
        "unread": True,
    },
]
ANSWER = {"from": "k1", "to": "now", "added": 1, "removed": 0, "changed": 7, "changes": CHANGES, "truncated": True}


def test_the_answer_as_values(sandbox: Sandbox, wire: WireServer) -> None:
    wire.will(Reply(200, ANSWER), Reply(200, {}))
    found = sandbox.diff("k1", patch=True)
    assert (found.added, found.changed, found.truncated, found.paths) == (1, 7, True, ["/a", "/b"])
    added, changed = found.changes
    assert added == FileChange("/a", "file", "added", after=FileState(**FILE), patch="+a\n")
    assert (changed.what, changed.unread, changed.before) == (("content",), True, FileState(**FILE))
    assert found.patch() == "+a\n"
    assert sandbox.diff(until="s1") == Diff((), 0, 0, 0)
    assert wire.lines == [
        "GET /v1/sandboxes/0b5f/diff?from=k1&to=now&patch=1",
        "GET /v1/sandboxes/0b5f/diff?from=template&to=s1",
    ]


def test_a_refusal_is_an_error(sandbox: Sandbox, wire: WireServer) -> None:
    wire.will(Reply(400, {"error": "different builds", "code": "bad_request", "field": "from"}))
    with pytest.raises(BadRequestError, match="different builds"):
        sandbox.diff("k1")


@pytest.mark.anyio
async def test_the_waiting_flavour(async_client: AsyncClient, wire: WireServer) -> None:
    wire.will(Reply(200, ANSWER))
    async with async_client:
        assert (await AsyncSandbox.from_dict(RECORD, async_client).diff()).paths == ["/a", "/b"]
