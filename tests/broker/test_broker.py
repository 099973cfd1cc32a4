"""The broker's process between a guest and a host, both real: only the egress process is the test."""

from __future__ import annotations

import base64
import gzip
import json
import os
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import pytest
from anyio.streams.tls import TLSStream

from pandastack.broker import Binding, BrokerClient, Use, open_broker
from pandastack.host import facts
from pandastack.model.secrets import new_placeholder
from tests.broker.origin import HOST, Origin, connect, hand_over, open_origin

pytestmark = pytest.mark.anyio

KEY, ELSEWHERE = new_placeholder(), new_placeholder()
VALUE = "real-value-0123456789"
BINDINGS = [
    Binding("KEY", KEY, VALUE, (HOST,)),
    Binding("ELSEWHERE", ELSEWHERE, "value-of-another-host", ("other.example.org",)),
]
_UID = 0x6F00_0000


@dataclass
class Stage:
    broker: BrokerClient
    origin: Origin
    uses: list[Use] = field(default_factory=list)

    open: AsyncExitStack = field(default_factory=AsyncExitStack)

    async def connect(self, port: int | None = None) -> TLSStream:
        return await self.open.enter_async_context(connect(self.broker, port or self.origin.port))


@asynccontextmanager
async def open_stage(directory: Path) -> AsyncIterator[Stage]:
    """A broker and a host."""
    trust, uses = directory / "trust.pem", list[Use]()
    trust.touch()
    uid = _UID if facts.is_root() else None
    async with open_origin(trust) as origin, open_broker(directory / "b", uid, uses.append, trust=trust) as broker:
        yield Stage(broker, origin, uses)


@pytest.fixture(scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    """Those of the module: tests use them in turn."""
    async with open_stage(tmp_path_factory.mktemp("broker")) as stage:
        yield stage


@pytest.fixture
async def stage(shared: Stage) -> AsyncIterator[Stage]:
    """The shared ones as if they were new: without connections, with a slot that was bound just now."""
    shared.origin.requests.clear()
    shared.uses.clear()
    await shared.broker.bind("slot", BINDINGS)
    async with AsyncExitStack() as shared.open:
        yield shared
    await shared.broker.unbind("slot")  # when it is done, all uses have been told


async def asked(stream: TLSStream, request: str | bytes, *, ends: bytes = b"", stays: bool = False) -> bytes:
    """Send a request; its answer up to the end of the connection, or ``ends``.

    A client that was refused hangs up once it has the whole answer, unless it ``stays``: the broker would wait for it.
    """
    await stream.send(request.encode() if isinstance(request, str) else request)
    answer, is_over = b"", False
    with suppress(anyio.EndOfStream), anyio.fail_after(20):
        while not ends or ends not in answer:
            answer += await stream.receive()
            if not (ends or stays or is_over) and is_whole_refusal(answer):
                is_over = True
                await stream.transport_stream.send_eof()  # type: ignore[attr-defined]
    return answer


def is_whole_refusal(answer: bytes) -> bool:
    head, _, body = answer.partition(b"\r\n\r\n")
    length = head.lower().partition(b"\r\ncontent-length: ")[2].split(b"\r\n")[0]
    return head[9:10] in (b"4", b"5") and length == b"%d" % len(body)


def get(path: str, *headers: str, method: str = "GET", host: str = HOST, body: bytes = b"") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", "Connection: close", *headers]
    lines += [f"Content-Length: {len(body)}"] if body else []
    return "\r\n".join([*lines, "", ""]).encode() + body


def contents(answer: bytes) -> bytes:
    return answer.partition(b"\r\n\r\n")[2]


async def test_a_header_gets_the_value_and_the_answer_is_masked(stage: Stage) -> None:
    stream = await stage.connect()
    assert stream.extra(anyio.streams.tls.TLSAttribute.alpn_protocol) == "http/1.1"
    answer = await asked(stream, get("/x?q=1", f"X-Key: {KEY}", "Accept-Encoding: br"))
    [seen] = stage.origin.requests
    assert f"x-key: {VALUE}".encode() in seen and KEY.encode() not in seen
    assert b"accept-encoding: identity" in seen.lower() and b"br" not in seen.lower().split(b"accept-encoding: ")[1][:8]
    assert VALUE.encode() not in answer and b"x-key: " + b"*" * len(VALUE) in answer
    [use] = stage.uses
    assert (use.name, use.host, use.method, use.path, use.refused) == ("KEY", HOST, "GET", "/x", "")
    assert (use.slot, use.sandbox) == ("slot", "sandbox")


async def test_basic_query_and_json(stage: Stage) -> None:
    credential = base64.b64encode(f"me:{KEY}".encode()).decode()
    body = json.dumps({"key": KEY}).encode()
    head = [f"Authorization: Basic {credential}", "Content-Type: application/json; charset=utf-8"]
    answer = await asked(await stage.connect(), get(f"/x?key={KEY}", *head, method="POST", body=body))
    [seen] = stage.origin.requests
    real = base64.b64encode(f"me:{VALUE}".encode())
    assert b"POST /x?key=" + VALUE.encode() in seen
    assert b"Basic " + real in seen
    assert json.loads(contents(seen)) == {"key": VALUE}
    assert answer.startswith(b"HTTP/1.1 200")
    assert real not in answer and VALUE.encode() not in answer
    assert [use.name for use in stage.uses] == ["KEY"]


async def test_compressed_json_gets_the_value(stage: Stage) -> None:
    packed = gzip.compress(json.dumps({"key": KEY}).encode())
    head = ["Content-Type: application/json", "Content-Encoding: gzip"]
    await asked(await stage.connect(), get("/x", *head, method="POST", body=packed))
    assert json.loads(contents(stage.origin.requests[0])) == {"key": VALUE}


async def test_json_that_is_long_when_decoded_is_only_looked_into(stage: Stage) -> None:
    packed = gzip.compress(json.dumps({"key": "x" * 2_000_000}).encode())
    head = ["Content-Type: application/json", "Content-Encoding: gzip"]
    await asked(await stage.connect(), get("/x", *head, method="POST", body=packed))
    assert contents(stage.origin.requests[0]) == packed
    stage.origin.requests.clear()
    packed = gzip.compress(json.dumps({"key": "x" * 2_000_000 + KEY}).encode())
    answer = await asked(await stage.connect(), get("/x", *head, method="POST", body=packed))
    assert answer.startswith(b"HTTP/1.1 403") and stage.origin.requests == []


async def test_chunked_json_gets_the_value(stage: Stage) -> None:
    body = json.dumps({"key": KEY})
    chunks = "".join(f"{len(body[at : at + 9]):x}\r\n{body[at : at + 9]}\r\n" for at in range(0, len(body), 9))
    head = get("/x", "Content-Type: application/json", "Transfer-Encoding: chunked", method="PUT")
    await asked(await stage.connect(), head + chunks.encode() + b"0\r\n\r\n")
    assert json.loads(contents(stage.origin.requests[0])) == {"key": VALUE}


REFUSED = [
    get(f"/{KEY}"),
    get("/", f"{KEY}: x"),
    get("/", f"X-Key: {ELSEWHERE}"),
    get("/", f"X-Key: {new_placeholder()}"),
    get("/", method="POST", body=f"a={KEY}".encode()),
    get("/", "Content-Type: text/plain", "Content-Encoding: gzip", method="POST", body=gzip.compress(KEY.encode())),
    get("/", "Content-Type: application/json", method="POST", body=b" " * (1024 * 1024 - 10) + KEY.encode()),
    get("/", "Transfer-Encoding: chunked", method="POST")
    + f"5\r\n{KEY[:5]}\r\n{len(KEY) - 5:x}\r\n{KEY[5:]}\r\n0\r\n\r\n".encode(),
]


@pytest.mark.parametrize("request_", REFUSED, ids=range(len(REFUSED)))
async def test_elsewhere_is_refused(stage: Stage, request_: bytes) -> None:
    answer = await asked(await stage.connect(), request_)
    assert answer.startswith(b"HTTP/1.1 403"), answer
    assert json.loads(contents(answer))["code"] == "secret_refused"
    assert not any(placeholder.encode() in seen for seen in stage.origin.requests for placeholder in (KEY, ELSEWHERE))
    assert not any(b"value" in seen for seen in stage.origin.requests)
    assert [bool(use.refused) for use in stage.uses] == [True]


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (get("/", host="other.example.org"), 421),
        (get("https://other.example.org/"), 421),
        (f"GET / HTTP/1.1\r\nHost: {HOST}\r\nHost: other.example.org\r\n\r\n".encode(), 400),
        (b"GET / HTTP/1.0\r\n\r\n", 400),
        (f"CONNECT {HOST}:443 HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode(), 405),
        (get("/", "Content-Encoding: br", method="POST", body=b"x"), 415),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"\x00\x01\x02\r\n\r\n", 400),
    ],
)
async def test_what_is_not_forwarded(stage: Stage, request_: bytes, status: int) -> None:
    answer = await asked(await stage.connect(), request_)
    assert answer.startswith(b"HTTP/1.1 %d" % status), answer
    assert stage.origin.requests == []


async def test_the_broker_itself_ends_a_connection_that_it_refused(stage: Stage) -> None:
    answer = await asked(await stage.connect(), get(f"/{KEY}"), stays=True)
    assert is_whole_refusal(answer)


async def test_absolute_form_is_for_the_host(stage: Stage) -> None:
    await asked(await stage.connect(), get(f"https://{HOST.upper()}/y?k={KEY}", host=f"{HOST}:443"))
    assert stage.origin.requests[0].startswith(b"GET /y?k=" + VALUE.encode() + b" HTTP/1.1\r\n")


async def test_one_connection_carries_many_requests(stage: Stage) -> None:
    stream = await stage.connect()
    ask = f"GET /n HTTP/1.1\r\nHost: {HOST}\r\nX-Key: {KEY}\r\n\r\n"
    for _ in range(3):
        assert b"*" * len(VALUE) in await asked(stream, ask, ends=b"identity\r\n\r\n")
    head = await asked(stream, f"HEAD /n HTTP/1.1\r\nHost: {HOST}\r\n\r\n", ends=b"\r\n\r\n")
    assert b"content-length: 99" in head.lower()
    assert b"POST" in await asked(
        stream, f"POST /n HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 3\r\n\r\nabc", ends=b"\r\n\r\nabc"
    )
    assert len(stage.origin.requests) == len(stage.uses) + 2 == 5


async def test_an_idle_connection_ends_with_the_hosts(stage: Stage) -> None:
    stream = await stage.connect()
    await asked(stream, f"GET /bye HTTP/1.1\r\nHost: {HOST}\r\n\r\n", ends=b"bye")
    with pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)), anyio.fail_after(30):
        await stream.receive()


@pytest.mark.parametrize("path", ["/gzip", "/close", "/slowly"])
async def test_answers_of_any_kind_are_masked(stage: Stage, path: str) -> None:
    answer = await asked(await stage.connect(), get(path, f"X-Key: {KEY}"))
    assert answer.startswith(b"HTTP/1.1 200")
    assert VALUE.encode() not in answer
    assert b"**" in answer


async def test_an_answer_that_cannot_be_looked_into_is_not_passed_on(stage: Stage) -> None:
    assert (await asked(await stage.connect(), get("/br", f"X-Key: {KEY}"))).startswith(b"HTTP/1.1 502")


async def test_expect_is_answered_here(stage: Stage) -> None:
    stream = await stage.connect()
    head = f"POST /n HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n"
    assert b" 100 " in await asked(stream, head, ends=b"\r\n\r\n")
    assert b"abc" in await asked(stream, b"abc", ends=b"abc")


async def test_a_large_upload_streams(stage: Stage) -> None:
    body = os.urandom(3 * 1024 * 1024)
    answer = await asked(await stage.connect(), get("/n", method="PUT", body=body))
    assert contents(stage.origin.requests[0]) == body
    assert answer.endswith(body)


async def test_a_websocket_is_upgraded_with_its_secret(stage: Stage) -> None:
    stream = await stage.connect()
    head = ["Upgrade: websocket", "Sec-WebSocket-Key: x", "Sec-WebSocket-Extensions: permessage-deflate"]
    wanted = get("/ws", *head, f"Authorization: Bearer {KEY}").replace(b"Connection: close", b"Connection: Upgrade")
    assert b" 101 " in await asked(stream, wanted, ends=b"hello")
    assert VALUE.encode() in stage.origin.requests[0] and b"deflate" not in stage.origin.requests[0]
    await stream.send(b"\x81\x83\0\0\0\0abc")
    with anyio.fail_after(30):
        while len(stage.origin.requests) < 2:  # noqa: ASYNC110  another task appends
            await anyio.sleep(0.01)
    assert stage.origin.requests[1] == b"\x81\x83\0\0\0\0abc"
    await stream.send(b"\x81" + bytes([0x80 | len(KEY)]) + b"\0\0\0\0" + KEY.encode())
    with pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)), anyio.fail_after(30):
        await stream.receive()
    assert not any(KEY.encode() in seen for seen in stage.origin.requests)
    assert stage.uses[-1].refused


async def test_a_host_with_a_wrong_certificate_gets_nothing(stage: Stage, tmp_path: Path) -> None:
    async with open_origin(tmp_path / "other.pem") as impostor:
        answer = await asked(await stage.connect(impostor.port), get("/", f"X-Key: {KEY}"))
        assert answer.startswith(b"HTTP/1.1 502") and b"certificate" in answer
        assert impostor.requests == []


async def test_plain_http_passes_without_secrets_only(stage: Stage, tmp_path: Path) -> None:
    async with open_origin(tmp_path / "x.pem", tls=False) as origin:
        for headers, status in (((), b"200"), ((f"X-Key: {KEY}",), b"403")):
            said, handing, stream = await hand_over(stage.broker, origin.port, tls=False, begun=get("/", *headers))
            assert b"true" in said
            async with handing, stream:
                answer = b""
                with suppress(anyio.EndOfStream), anyio.fail_after(20):
                    while True:
                        answer += await stream.receive()
            assert answer.startswith(b"HTTP/1.1 " + status)
        assert len(origin.requests) == 1


async def test_a_slot_without_secrets_is_refused(stage: Stage) -> None:
    said, handing, stream = await hand_over(stage.broker, stage.origin.port, slot="unknown")
    await handing.aclose()
    await stream.aclose()
    assert json.loads(said) == {"ok": False, "reason": "the secrets of this sandbox are not here"}


async def test_unbind_ends_connections(stage: Stage) -> None:
    stream = await stage.connect()
    await asked(stream, f"GET /n HTTP/1.1\r\nHost: {HOST}\r\n\r\n", ends=b"identity\r\n\r\n")
    await stage.broker.unbind("slot")
    with pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)), anyio.fail_after(30):
        await stream.receive()


async def test_a_killed_broker_comes_back_with_its_secrets(tmp_path: Path) -> None:
    async with open_stage(tmp_path) as stage, stage.open:
        await stage.broker.bind("slot", BINDINGS)
        pid = stage.broker.pid
        assert pid is not None
        os.kill(pid, 9)
        with anyio.fail_after(20):
            while stage.broker.pid in (None, pid):  # noqa: ASYNC110  another process
                await anyio.sleep(0.02)
        await asked(await stage.connect(), get("/x", f"X-Key: {KEY}"))
        assert VALUE.encode() in stage.origin.requests[0]


async def test_the_process_has_a_user_of_its_own_and_no_one_reads_its_memory(stage: Stage) -> None:
    status = Path(f"/proc/{stage.broker.pid}/status").read_text()
    assert "NoNewPrivs:\t1" in status
    if facts.is_root():
        assert f"Uid:\t{_UID}\t{_UID}\t{_UID}\t{_UID}" in status
        assert "Groups:\t \n" in status
        assert Path(f"/proc/{stage.broker.pid}/mem").stat().st_uid == 0  # not dumpable: root's
    environ = Path(f"/proc/{stage.broker.pid}/cmdline").read_bytes()
    assert VALUE.encode() not in environ


async def test_the_authority_is_kept_and_private(tmp_path: Path) -> None:
    async with open_broker(tmp_path, None, lambda _: None) as broker:
        first = broker.ca_pem
    assert (tmp_path / "ca.pem").stat().st_mode & 0o777 == 0o600
    async with open_broker(tmp_path, None, lambda _: None) as broker:
        assert broker.ca_pem == first
    ssl.create_default_context(cadata=first)
