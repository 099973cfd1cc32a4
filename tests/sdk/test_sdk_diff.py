"""``sandbox.diff``: what is asked, and the values that the answer becomes."""

from __future__ import annotations

import pytest

from pandastack import AsyncClient, AsyncSandbox, BadRequestError, Diff, FileChange, FileState, Sandbox
from tests.sdk.wire_server import DIFF, FILE, RECORD, Reply, WireServer


def test_the_answer_as_values(sandbox: Sandbox, wire: WireServer) -> None:
    wire.will(Reply(200, DIFF), Reply(200, {}))
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
    wire.will(Reply(200, DIFF))
    async with async_client:
        assert (await AsyncSandbox.from_dict(RECORD, async_client).diff()).paths == ["/a", "/b"]
