"""Which refusals are sent again, and after how long: the rules alone, then the loop around them."""

from __future__ import annotations

import asyncio
import threading
from datetime import UTC, datetime
from email.utils import format_datetime

import httpx
import pytest

from pandastack import (
    AsyncClient,
    Client,
    CreateCancelled,
    CreateRetryEvent,
    NotFoundError,
    Sandbox,
    ServerError,
)
from pandastack.errors import BadRequestError, CapacityError, ConnectionError
from pandastack.sdk._retry import Capacity, NotFoundOnce, Unanswered, WarmUp, create_retry_budget
from pandastack.sdk.wire.coding import Refusal, no_answer, parse_retry_after, refusal_from
from tests.sdk.wire_server import RECORD, Reply, WireServer

NO_ROOM = b'{"error": "no compute capacity available"}'


def refusal(status: int, content: bytes = NO_ROOM, retry_after: str | None = None) -> Refusal:
    return refusal_from(status, {} if retry_after is None else {"retry-after": retry_after}, content)


def biggest(low: float, high: float) -> float:
    return high


def smallest(low: float, high: float) -> float:
    return low


@pytest.mark.parametrize(
    ("given", "delay"),
    [
        (refusal(503, retry_after="5"), 5.0),
        (refusal(503), None),
        (refusal(503, b"<html>bad gateway</html>", "5"), None),
        (refusal(503, b'{"error": ""}', "5"), None),
        (refusal(503, b'["error"]', "5"), None),
        (refusal(507, b""), 0.5),
        (refusal(507, retry_after="3"), 3.0),
        (refusal(429, b"slow down", "1"), 1.0),
        (refusal(429), None),
        (refusal(500, retry_after="1"), None),
        (refusal(502, retry_after="1"), None),
        (refusal(504, retry_after="1"), None),
    ],
)
def test_which_refusals_for_capacity_are_repeated(given: Refusal, delay: float | None) -> None:
    assert Capacity(60, smallest).delay(given, 0) == delay


def test_jitter_grows_and_lands_on_top_of_the_hint() -> None:
    rule = Capacity(1000, biggest)
    delays = [rule.delay(refusal(503, retry_after="5"), 0) for _ in range(7)]
    assert delays == [6, 7, 9, 13, 20, 20, 20]


def test_budget_ends_the_repeats() -> None:
    assert Capacity(60, biggest).delay(refusal(503, retry_after="61"), 0) is None
    assert Capacity(60, biggest).delay(refusal(503, retry_after="5"), 56) is None
    assert Capacity(60, biggest).delay(refusal(503, retry_after="5"), 54.5) == 5.5, "shortened to the budget"
    assert Capacity(0, biggest).delay(refusal(507), 0) is None


def test_warm_up_backs_off_until_its_budget_is_used() -> None:
    rule = WarmUp(20)
    cold = refusal(502, b'{"error": "dial guest: connect: connection refused"}')
    assert [rule.delay(cold, 0) for _ in range(5)] == [0.5, 0.75, 1.125, 1.6875, 2.0]
    assert rule.delay(cold, 19) is None


@pytest.mark.parametrize(
    "given",
    [
        refusal(409, b'{"error": "connect: connection refused"}'),
        refusal(500, b'{"error": "Connect: Connection Refused"}'),
        refusal(500, b'{"error": "boot failed"}'),
    ],
)
def test_warm_up_repeats_nothing_else(given: Refusal) -> None:
    assert WarmUp(20).delay(given, 0) is None


def test_not_found_is_asked_once_more() -> None:
    rule = NotFoundOnce()
    assert rule.delay(refusal(404), 0) == 0.2
    assert rule.delay(refusal(404), 0) is None


def test_retry_after_may_be_a_date() -> None:
    now = datetime(2025, 1, 1, tzinfo=UTC)
    later = format_datetime(now.replace(second=7), usegmt=True)
    assert parse_retry_after(later, now.timestamp()) == 7
    assert parse_retry_after(format_datetime(now, usegmt=True), now.timestamp() + 9) == 0
    assert [parse_retry_after(each) for each in ("soon", "inf", None)] == [None, None, None]


def test_budget_comes_from_the_argument_or_the_environment(caplog: pytest.LogCaptureFixture) -> None:
    name = "PANDASTACK_MAX_CREATE_RETRY_SECONDS"
    assert create_retry_budget(None, {}) == 60
    assert create_retry_budget(None, {name: "7.5"}) == 7.5
    assert create_retry_budget(0, {name: "7"}) == 0
    assert create_retry_budget(None, {name: "-1"}) == 60
    assert name in caplog.text
    for bad in (-1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="max_create_retry_seconds"):
            create_retry_budget(bad, {})


def test_a_refused_create_is_repeated_and_announced(wire: WireServer) -> None:
    events: list[CreateRetryEvent] = []
    wire.will(Reply(503, NO_ROOM, {"Retry-After": "0"}), Reply(201, RECORD))
    with Client(wire.url, "k", on_create_retry=events.append) as client:
        assert client.sandboxes.create("base").id == RECORD["id"]
    (event,) = events
    assert (event.method, event.path, event.attempt, event.status_code) == ("POST", "/sandboxes", 1, 503)
    assert (event.error, event.retry_after_seconds) == ("no compute capacity available", 0)
    assert 0 <= event.delay_seconds <= 1


def test_the_last_refusal_is_raised_unchanged(wire: WireServer) -> None:
    wire.will(Reply(503, {"error": "full", "code": "no_capacity", "hint": "later"}, {"Retry-After": "9"}))
    with Client(wire.url, "k", max_create_retry_seconds=1) as client, pytest.raises(CapacityError) as caught:
        client.sandboxes.create("base")
    assert (caught.value.message, caught.value.hint, caught.value.retry_after) == ("full", "later", 9)


def test_a_quota_is_not_repeated(client: Client, wire: WireServer) -> None:
    wire.will(Reply(429, {"error": "too many sandboxes"}))
    with pytest.raises(BadRequestError, match="too many sandboxes"):
        client.sandboxes.create("base")


def test_capacity_is_not_repeated_outside_of_creates(sandbox: Sandbox, wire: WireServer) -> None:
    wire.will(Reply(503, NO_ROOM, {"Retry-After": "0"}))
    with pytest.raises(ServerError, match="no compute"):
        sandbox.exec("true")


def test_cancel_before_the_first_attempt_sends_nothing(client: Client, wire: WireServer) -> None:
    cancel = threading.Event()
    cancel.set()
    with pytest.raises(CreateCancelled):
        client.sandboxes.create("base", cancel=cancel)
    assert wire.asked == []


def test_cancel_ends_the_wait(wire: WireServer) -> None:
    cancel = threading.Event()
    wire.will(Reply(503, NO_ROOM, {"Retry-After": "50"}))
    client = Client(wire.url, "k", on_create_retry=lambda event: cancel.set())
    with client, pytest.raises(CreateCancelled) as caught:
        client.sandboxes.create("base", cancel=cancel)
    assert isinstance(caught.value.__cause__, ServerError)


async def test_cancel_ends_the_wait_of_the_waiting_client(wire: WireServer) -> None:
    cancel = asyncio.Event()
    wire.will(Reply(503, NO_ROOM, {"Retry-After": "50"}))
    async with AsyncClient(wire.url, "k", on_create_retry=lambda event: cancel.set()) as client:
        with pytest.raises(CreateCancelled):
            await client.sandboxes.create("base", cancel=cancel)


async def test_each_flavour_refuses_the_others_event(client: Client, async_client: AsyncClient) -> None:
    with pytest.raises(TypeError, match=r"threading\.Event"):
        client.sandboxes.create("base", cancel=asyncio.Event())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"asyncio\.Event"):
        await async_client.sandboxes.create("base", cancel=threading.Event())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="is_set"):
        client.sandboxes.create("base", cancel=object())  # type: ignore[arg-type]


def test_a_guest_that_warms_up_is_asked_again(sandbox: Sandbox, wire: WireServer) -> None:
    wire.will(Reply(502, {"error": "no route to host"}), Reply(200, {"stdout": "1", "stderr": "", "exit_code": 0}))
    assert sandbox.exec("echo 1").stdout == "1"
    assert wire.lines == ["POST /v1/sandboxes/0b5f/exec"] * 2


def test_a_404_of_a_read_is_asked_again_but_not_of_a_write(client: Client, wire: WireServer) -> None:
    wire.will(Reply(404, {"error": "x"}), Reply(200, RECORD))
    assert client.sandboxes.get("0b5f").template == "base"
    wire.will(Reply(404, {"error": "no such sandbox"}))
    with pytest.raises(NotFoundError, match="no such sandbox"):
        Sandbox.from_dict(RECORD, client).set_ttl(5)


IN_USE = Reply(409, {"error": "still being answered", "code": "idempotency_key_in_use"}, {"Retry-After": "0"})
BROKEN = Reply(201, RECORD, cut=True)


def keys(wire: WireServer) -> list[str | None]:
    return [each.headers.get("Idempotency-Key") for each in wire.asked]


def test_a_create_whose_answer_is_lost_is_sent_again_with_the_same_key(wire: WireServer, client: Client) -> None:
    wire.will(BROKEN, IN_USE, Reply(201, RECORD))
    seen: list[CreateRetryEvent] = []
    client.transport._on_create_retry = seen.append
    assert client.sandboxes.create("base").id == RECORD["id"]
    assert len(wire.asked) == 3 and len(set(keys(wire))) == 1 and all(keys(wire))
    assert [each.status_code for each in seen] == [0, 409]


def test_each_create_has_a_key_of_its_own_unless_it_is_given(wire: WireServer, client: Client) -> None:
    wire.will(*[Reply(201, RECORD)] * 4)
    client.sandboxes.create("base")
    client.sandboxes.create("base")
    for _ in range(2):
        client.sandboxes.create("base", idempotency_key="mine")
    first, second, *given = keys(wire)
    assert first and second and first != second
    assert given == ["mine", "mine"]


def test_forks_and_captures_have_keys_and_commands_do_not(wire: WireServer, client: Client) -> None:
    sandbox = Sandbox.from_dict(RECORD, client)
    wire.will(Reply(201, {"sandbox": RECORD}), Reply(201, {"children": [RECORD]}), Reply(201, {"id": "s"}))
    sandbox.fork()
    sandbox.fork_tree(1, idempotency_key="tree")
    sandbox.snapshot()
    assert keys(wire)[1] == "tree" and all(keys(wire))
    wire.will(Reply(200, {"stdout": "", "stderr": "", "exit_code": 0}), Reply(204))
    sandbox.exec("true")
    sandbox.pause()
    assert keys(wire)[3:] == [None, None]


def test_a_request_without_a_key_is_not_sent_again_when_the_connection_breaks(wire: WireServer, client: Client) -> None:
    wire.will(Reply(200, {"id": "me"}, cut=True))
    with pytest.raises(ConnectionError):
        client.me()
    assert len(wire.asked) == 1


def test_a_server_that_is_not_there_is_said_at_once() -> None:
    with Client(api_url="http://127.0.0.1:9", api_key="pds_x") as client, pytest.raises(ConnectionError):
        client.sandboxes.create("base")


def lost(cause: Exception) -> Refusal:
    error = ConnectionError("lost")
    error.__cause__ = cause
    return no_answer(error)


def test_after_a_broken_connection_the_server_may_be_starting_again() -> None:
    refused, broken = lost(httpx.ConnectError("refused")), lost(httpx.RemoteProtocolError("cut"))
    late = lost(httpx.ReadTimeout("late"))
    rule = Unanswered(60)
    assert [rule.delay(each, 0) for each in (refused, late)] == [None, None]
    assert [rule.delay(each, 0) for each in (broken, refused, refused, refused, refused)] == [0.5, 1, 2, 4, 4]
    assert rule.delay(broken, 57) is None
    assert Unanswered(0).delay(broken, 0) is None
