"""What the methods about a sandbox's network send, and what they make of the answers."""

from __future__ import annotations

import json

import pytest

from pandastack import AsyncClient, AsyncSandbox, Client, EgressDecision, Sandbox
from pandastack.errors import UnavailableError
from tests.sdk.wire_server import RECORD, Reply, WireServer

HERE = "/v1/sandboxes/0b5f"
DECISION = {
    "seq": 5,
    "time": "now",
    "allowed": False,
    "via": "dns",
    "name": "a.example",
    "address": "",
    "port": 0,
    "rule": "default",
    "reason": "no rule",
    "later": "unknown to this client",
}


def events(*pairs: tuple[str, object]) -> Reply:
    text = "".join(f"event: {name}\ndata: {json.dumps(data)}\n\n" for name, data in pairs)
    return Reply(200, text.encode(), {"content-type": "text/event-stream"})


def test_policies_are_sent_as_they_are(client: Client, sandbox: Sandbox, wire: WireServer) -> None:
    policy = {"egress": {"allow": ["a.example"]}}
    wire.will(Reply(201, RECORD), Reply(200, policy), Reply(200, policy), Reply(200, policy), Reply(200, policy))
    client.sandboxes.create("base", network="deny")
    assert sandbox.network.set(policy) == sandbox.network.set("none") == sandbox.network.get() == policy
    sandbox.network.allow("a.example", 443)
    assert wire.lines[1:] == [f"PUT {HERE}/network"] * 2 + [f"GET {HERE}/network", f"POST {HERE}/network/allow"]
    sent = [each.json() for each in wire.asked if each.body]
    assert sent[0]["network"] == "deny"
    assert sent[1:] == [policy, {"egress": "none"}, {"host": "a.example", "port": 443}]


def test_the_log_is_read_and_followed(sandbox: Sandbox, wire: WireServer) -> None:
    wire.will(Reply(200, {"records": [DECISION], "forgotten": False}), events(("decision", DECISION)))
    (found,) = sandbox.network.log(since=4)
    assert (found.seq, found.name, found.allowed, found.dropped) == (5, "a.example", False, 0)
    assert list(sandbox.network.follow_log(since=4)) == [found]
    assert wire.lines == [f"GET {HERE}/egress/log?since=4", f"GET {HERE}/egress/log?since=4&follow=1"]
    assert isinstance(found, EgressDecision)


def test_a_stream_that_fails_is_an_error(sandbox: Sandbox, wire: WireServer) -> None:
    wire.will(events(("decision", DECISION), ("error", {"error": "the engine is gone", "code": "unavailable"})))
    with pytest.raises(UnavailableError, match="the engine is gone"):
        list(sandbox.network.follow_log())


@pytest.mark.anyio
async def test_the_asynchronous_client_can_do_the_same(async_client: AsyncClient, wire: WireServer) -> None:
    sandbox = AsyncSandbox.from_dict(RECORD, async_client)
    wire.will(Reply(200, {"allowed": True, "rule": "allow", "how_to_allow": "", "reason": ""}))
    wire.will(events(("decision", DECISION)))
    async with async_client:
        assert (await sandbox.network.check("a.example", 443))["allowed"]
        assert [each.seq async for each in sandbox.network.follow_log()] == [5]
