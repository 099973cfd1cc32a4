"""Events on their way to receivers on loopback: signed, repeated until they are taken, held up by nobody."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path

import anyio
import pytest
from standardwebhooks.webhooks import Webhook

from pandastack.model.caller import Caller
from pandastack.model.forwarded import parse_networks
from pandastack.model.webhooks import Occurrence
from pandastack.services import ControlPlane
from pandastack.services.records import outbox
from pandastack.services.settings import Networks
from pandastack.services.webhooks.outside import Reach
from pandastack.services.webhooks.webhooks import EndpointChange, Made, NewEndpoint
from pandastack.store.webhooks import DeliveryRecord, DeliveryState
from tests.cluster.scripted_engine import ScriptedEngine
from tests.support.plane import BASE, CALLER, OUTSIDER, QUICK, WORKSPACE, add_workspace, running
from tests.support.receiver import Receiver, receiving
from tests.support.tls import make_certificate

pytestmark = pytest.mark.anyio

OPEN = replace(QUICK, webhook_networks=Networks(parse_networks("127.0.0.0/8")), webhook_retry_seconds=0.001)
PATIENT = replace(OPEN, webhook_retry_seconds=3600.0)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as made:
        yield made


def happened(number: int = 1, workspace: str = WORKSPACE, **more: str) -> Occurrence:
    return Occurrence(workspace, "build.ended", f"build-{number}", {"id": f"build-{number}"}, **more)  # type: ignore[arg-type]


async def endpoint(plane: ControlPlane, url: str, *events: str) -> Made:
    return await plane.webhooks.create(CALLER, NewEndpoint(url, events or None))


async def logged(plane: ControlPlane, made: Made) -> list[DeliveryRecord]:
    return await plane.webhooks.deliveries(CALLER, made.record.id, 100)


async def until_ended(plane: ControlPlane, made: Made, count: int = 1) -> list[DeliveryRecord]:
    """The log, once so many deliveries have ended."""
    with anyio.fail_after(30):
        while True:
            found = await logged(plane, made)
            if sum(each.state is not DeliveryState.PENDING for each in found) >= count:
                return found
            await anyio.sleep(0.02)


async def until_tried(plane: ControlPlane, made: Made) -> DeliveryRecord:
    """The newest delivery, once it was tried."""
    with anyio.fail_after(30):
        while True:
            found = await logged(plane, made)
            if found and found[0].attempts:
                return found[0]
            await anyio.sleep(0.02)


async def test_the_life_of_a_sandbox_arrives_signed_and_in_order(
    engine: ScriptedEngine, url: str, receiver: Receiver
) -> None:
    async with running(engine, url, OPEN) as plane:
        made = await endpoint(plane, receiver.url, "sandbox.*")
        sandbox = await plane.sandboxes.create(CALLER, BASE)
        await plane.lifecycle.pause(CALLER, sandbox.id)
        await plane.lifecycle.resume(CALLER, sandbox.id)
        await plane.webhooks.publish(happened())
        await plane.sandboxes.delete(CALLER, sandbox.id)
        received = await receiver.until(4)
        messages = [Webhook(made.secret).verify(each.body, each.headers) for each in received]
        assert [each["type"].partition(".")[2] for each in messages] == ["created", "paused", "running", "deleted"]
        assert {each["data"]["id"] for each in messages} == {sandbox.id}
        assert messages[1]["data"]["before"] == "running" and messages[1]["data"]["status"] == "paused"
        assert len({each.id for each in received}) == 4
        assert received[0].headers["content-type"] == "application/json"
        await until_ended(plane, made, 4)


async def test_an_event_goes_to_its_own_workspace(engine: ScriptedEngine, url: str, receiver: Receiver) -> None:
    async with running(engine, url, OPEN) as plane:
        await add_workspace(plane, OUTSIDER.workspace)
        await plane.webhooks.create(OUTSIDER, NewEndpoint(receiver.url + "/theirs"))
        await endpoint(plane, receiver.url)
        await plane.webhooks.publish(happened(1), happened(2, OUTSIDER.workspace))
        received = await receiver.until(2)
        assert sorted((each.path, json.loads(each.body)["data"]["id"]) for each in received) == [
            ("/hook", "build-1"),
            ("/hook/theirs", "build-2"),
        ]


async def test_what_fails_is_sent_again_with_the_same_id(engine: ScriptedEngine, url: str, receiver: Receiver) -> None:
    receiver.answers = [500, 404, 302]
    receiver.headers = {"location": "/elsewhere"}
    async with running(engine, url, OPEN) as plane:
        made = await endpoint(plane, receiver.url)
        await plane.webhooks.publish(happened())
        received = await receiver.until(4)
        assert {each.path for each in received} == {"/hook"}, "redirects are not followed"
        assert len({each.id for each in received}) == 1
        (found,) = await until_ended(plane, made)
        assert (found.state, found.attempts, found.status) == (DeliveryState.DELIVERED, 4, 204)
        assert plane.webhooks.get(CALLER, made.record.id).failing_since is None


async def test_a_delivery_fails_after_its_last_attempt_and_is_sent_again_on_request(
    engine: ScriptedEngine, url: str, receiver: Receiver
) -> None:
    quick = replace(OPEN, webhook_retry_seconds=1e-6)
    receiver.answers = [500] * 8
    async with running(engine, url, quick) as plane:
        made = await endpoint(plane, receiver.url)
        await plane.webhooks.publish(happened())
        (found,) = await until_ended(plane, made)
        assert (found.state, found.attempts, found.status) == (DeliveryState.FAILED, 8, 500)
        again = await plane.webhooks.redeliver(CALLER, made.record.id, found.id)
        assert again.state is DeliveryState.PENDING
        received = await receiver.until(9)
        assert len({each.id for each in received}) == 1
        assert (await until_ended(plane, made))[0].state is DeliveryState.DELIVERED


async def test_an_event_with_a_key_is_sent_once_however_often_it_is_told(
    engine: ScriptedEngine, url: str, receiver: Receiver
) -> None:
    async with running(engine, url, OPEN) as plane:
        made = await endpoint(plane, receiver.url)
        for _ in range(3):
            await plane.webhooks.publish(happened(key="ended"))
        await plane.webhooks.publish(happened(2))
        await until_ended(plane, made, 2)
        assert len(receiver.received) == 2


async def test_a_slow_receiver_holds_up_neither_others_nor_those_who_publish(
    engine: ScriptedEngine, url: str, receiver: Receiver
) -> None:
    receiver.held.clear()
    with receiving() as other:
        async with running(engine, url, OPEN) as plane:
            await endpoint(plane, receiver.url)
            made = await endpoint(plane, other.url)
            for number in range(20):
                await plane.webhooks.publish(happened(number))
            await until_ended(plane, made, 20)
            assert len(receiver.received) == 1, "it has not answered the first one yet"
            receiver.held.set()
            await receiver.until(20)


async def test_a_full_queue_drops_and_counts(
    engine: ScriptedEngine, url: str, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "MOST_WAITING", 3)
    receiver.held.clear()
    async with running(engine, url, OPEN) as plane:
        made = await endpoint(plane, receiver.url)
        for number in range(5):
            await plane.webhooks.publish(happened(number))
        assert plane.webhooks.get(CALLER, made.record.id).dropped == 2
        receiver.held.set()
        assert len(await until_ended(plane, made, 3)) == 3
        await plane.webhooks.publish(happened(6))
        await receiver.until(4)


async def test_a_disabled_endpoint_gets_nothing_and_what_waited_when_it_is_enabled(
    engine: ScriptedEngine, url: str, receiver: Receiver
) -> None:
    receiver.answers = [500]
    async with running(engine, url, PATIENT) as plane:
        made = await endpoint(plane, receiver.url)
        await plane.webhooks.publish(happened(1))
        tried = await until_tried(plane, made)
        disabled = await plane.webhooks.change(CALLER, made.record.id, EndpointChange(enabled=False))
        assert not disabled.enabled
        await plane.webhooks.publish(happened(2))
        assert len(await logged(plane, made)) == 1
        await plane.webhooks.change(CALLER, made.record.id, EndpointChange(enabled=True))
        await plane.webhooks.redeliver(CALLER, made.record.id, tried.id)
        (found,) = await until_ended(plane, made)
        assert found.state is DeliveryState.DELIVERED and len(receiver.received) == 2


async def test_gone_disables_an_endpoint_with_the_reason(engine: ScriptedEngine, url: str, receiver: Receiver) -> None:
    receiver.answers = [410]
    async with running(engine, url, OPEN) as plane:
        made = await endpoint(plane, receiver.url)
        await plane.webhooks.publish(happened(1))
        await until_ended(plane, made)
        found = plane.webhooks.get(CALLER, made.record.id)
        assert not found.enabled and "410" in (found.disabled_reason or "")


async def test_names_that_lead_to_the_host_are_not_reached(engine: ScriptedEngine, url: str) -> None:
    with receiving(None) as hidden:
        async with running(engine, url, QUICK) as plane:
            port = hidden.url.rpartition(":")[2]
            made = await endpoint(plane, f"https://localhost:{port}")
            await plane.webhooks.publish(happened())
            found = await until_tried(plane, made)
            assert found.status is None and "no address that webhooks may reach" in (found.error or "")
        assert hidden.received == []


async def test_the_hosts_own_networks_are_denied_and_those_of_the_operator_are_not() -> None:
    reach = Reach(parse_networks("10.1.0.0/16"), lambda: ["203.0.113.7/32"])
    wanted = ["203.0.113.7", "203.0.113.8", "10.1.2.3", "10.2.0.1", "169.254.169.254", "100.64.0.1", "127.0.0.1"]
    found = [each for each in wanted if await reach.may_reach(IPv4Address(each))]
    assert found == ["203.0.113.8", "10.1.2.3"]
    assert not await reach.may_reach(IPv4Address("203.0.113.8"), plain=True), "plain HTTP stays in the operator's"


async def test_certificates_are_checked(
    engine: ScriptedEngine, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = make_certificate(tmp_path, "localhost")
    with receiving(context) as receiver:
        address = receiver.url.replace("127.0.0.1", "localhost")
        async with running(engine, url, PATIENT) as plane:
            made = await endpoint(plane, address)
            await plane.webhooks.publish(happened())
            found = await until_tried(plane, made)
            assert "certificate is not accepted" in (found.error or "") and receiver.received == []
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "server.pem"))
        async with running(engine, url, PATIENT) as plane:
            wrong = await endpoint(plane, receiver.url)  # the certificate does not name the address
            await plane.webhooks.redeliver(CALLER, made.record.id, found.id)
            assert (await until_ended(plane, made))[0].state is DeliveryState.DELIVERED
            await plane.webhooks.publish(happened(2))
            assert "certificate" in ((await until_tried(plane, wrong)).error or "")


async def test_a_long_answer_is_cut_off(engine: ScriptedEngine, url: str, receiver: Receiver) -> None:
    receiver.answers, receiver.body = [200, 200], b"x" * 50_000_000
    async with running(engine, url, OPEN) as plane:
        made = await endpoint(plane, receiver.url)
        await plane.webhooks.publish(happened(1), happened(2))
        found = await until_ended(plane, made, 2)
        assert [each.status for each in found] == [200, 200]
        assert not any("xxx" in repr(each) for each in found)


async def test_deleting_an_endpoint_leaves_nothing(engine: ScriptedEngine, url: str, receiver: Receiver) -> None:
    receiver.held.clear()
    async with running(engine, url, OPEN) as plane:
        made = await endpoint(plane, receiver.url)
        await plane.webhooks.publish(happened())
        await receiver.until(1)
        await plane.webhooks.delete(CALLER, made.record.id)
        assert await plane.secrets.owned(WORKSPACE, "webhooks") == []
        await plane.secrets.put_owned(WORKSPACE, "webhooks", "left-by-a-crash", "x")
    async with running(engine, url, OPEN) as plane:
        assert await plane.secrets.owned(WORKSPACE, "webhooks") == [] and plane.webhooks.list(CALLER) == []


async def test_a_killed_server_loses_nothing_that_was_published(
    engine: ScriptedEngine, url: str, receiver: Receiver
) -> None:
    receiver.held.clear()  # the server dies before it has an answer
    argv = [sys.executable, "-m", "tests.support.publishing", url, receiver.url]
    async with await anyio.open_process(argv, cwd=Path(__file__).parents[2], stdout=None, stderr=None) as server:
        try:
            (first,) = await receiver.until(1)
        finally:
            server.kill()
    receiver.held.set()
    async with running(engine, url, OPEN) as plane:
        received = await receiver.until(3)
        assert [json.loads(each.body)["data"]["id"] for each in received] == ["one", "one", "two"]
        assert received[1].id == first.id != received[2].id
        (made,) = plane.webhooks.list(Caller(WORKSPACE, "me"))
        assert len(await until_ended(plane, Made(made, ""), 2)) == 2
