"""Requests through the gateway to a native server, over the contract's tunnels."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest
from websockets.asyncio.client import connect

from pandastack.broker.authority import read_ca
from pandastack.gateway.http.tokens import HEADER, PROTOCOL, QUERY
from tests.gateway.native import Native, exchange, shown
from tests.gateway.world import SANDBOX, TOKEN, World

pytestmark = pytest.mark.anyio
NAVIGATION = "Accept: text/html\r\nSec-Fetch-Mode: navigate\r\n"


async def ask(world: World, port: int, line: str = "GET /", headers: str = "", body: bytes = b"") -> tuple:  # type: ignore[type-arg]
    text = f"{line} HTTP/1.1\r\nHost: {world.host(port)}\r\n{headers}\r\n"
    return await exchange(world.port, text.encode() + body)


async def test_a_request_as_the_server_sees_it(world: World, native: Native) -> None:
    headers = "Cookie: own=1\r\nAuthorization: Basic x\r\nConnection: x-hop\r\nX-Hop: 1\r\nX-Pandastack-Sandbox: y\r\n"
    headers += "X-Pandastack-Caller: z\r\nX_Pandastack-Caller: z\r\nx_pandastack_caller: z\r\n"
    status, _, body = await ask(world, native.port, "GET /a%2Fb//../c?d=e&f", headers)
    target, seen = shown(body)
    assert status == 200
    assert target == "/a%2Fb//../c?d=e&f"
    assert seen["host"] == f"localhost:{native.port}"
    assert seen["x-forwarded-host"] == world.host(native.port)
    assert (seen["x-forwarded-proto"], seen["x-forwarded-for"]) == ("http", "127.0.0.1")
    assert (seen["cookie"], seen["authorization"]) == ("own=1", "Basic x")
    assert not {"x-hop", "connection", "x-pandastack-sandbox"} & seen.keys()
    assert not any("caller" in name for name in seen)


@pytest.mark.parametrize(
    ("switches", "host", "origin"),
    [
        ({"host": "keep"}, "{authority}", "http://a"),
        ({"host": "app.test", "origin": "rewrite"}, "app.test", "http://app.test"),
    ],
)
async def test_the_switches_of_a_port(
    world: World, native: Native, switches: dict[str, str], host: str, origin: str
) -> None:
    world.switches = switches
    _, seen = shown((await ask(world, native.port, headers="Origin: http://a\r\n"))[2])
    assert seen["host"] == host.format(authority=world.host(native.port))
    assert seen["origin"] == origin


async def test_what_goes_out(world: World, native: Native) -> None:
    status, headers, _ = await ask(world, native.port, "GET /cookies")
    assert status == 302
    assert headers["location"] == f"http://{world.host(native.port)}/next?x=1"
    assert headers["set-cookie"] in ("a=1; Path=/", "b=2; HttpOnly")


@pytest.mark.parametrize("host", ["a b", "x..y", "é", "1-x.localhost/", "70000-x.localhost", "a:b@c"])
async def test_tricks_in_the_host(world: World, host: str) -> None:
    status, _, _ = await exchange(world.port, f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    assert status == 400


@pytest.mark.parametrize(
    "raw",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: {h}\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET /a\\b HTTP/1.1\r\nHost: {h}\r\n\r\n",
        b"GET /a#b HTTP/1.1\r\nHost: {h}\r\n\r\n",
        b"GET http://other/ HTTP/1.1\r\nHost: {h}\r\n\r\n",
        b"GET x HTTP/1.1\r\nHost: {h}\r\n\r\n",
        b"\x00\x01\r\n\r\n",
    ],
)
async def test_what_could_be_read_in_two_ways(world: World, native: Native, raw: bytes) -> None:
    status, headers, _ = await exchange(world.port, raw.replace(b"{h}", world.host(native.port).encode()))
    assert (status, headers["content-type"]) == (400, "application/json")


async def test_nothing_listens(world: World, free_port: Callable[[], int]) -> None:
    port = free_port()
    status, headers, body = await ask(world, port)
    assert (status, headers["content-type"], json.loads(body)["code"]) == (502, "application/json", "not_found")
    status, headers, body = await ask(world, port, headers=NAVIGATION)
    assert status == 502 and headers["content-type"].startswith("text/html") and b"Nothing listens" in body


async def test_no_such_preview(world: World) -> None:
    assert (await exchange(world.port, b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"))[0] == 404
    assert (await exchange(world.port, b"GET / HTTP/1.1\r\nHost: 80-nobody.localhost\r\n\r\n"))[0] == 404


async def test_a_large_upload_and_its_kinds(world: World, native: Native) -> None:
    body = b"y" * 5_000_000
    status, _, answer = await ask(world, native.port, "POST /size", f"Content-Length: {len(body)}\r\n", body)
    assert (status, json.loads(answer)) == (200, {"bytes": len(body)})
    chunked = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (b"abc", b"d" * 70_000)) + b"0\r\n\r\n"
    headers = "Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n"
    assert json.loads((await ask(world, native.port, "PUT /size", headers, chunked))[2]) == {"bytes": 70_003}


async def test_an_answer_before_the_end_of_the_body(world: World, native: Native) -> None:
    status, _, body = await ask(world, native.port, "POST /early", "Content-Length: 50000000\r\n", b"z" * 1000)
    assert (status, body) == (413, b"too large")


async def test_a_large_answer_and_an_old_client(world: World, native: Native) -> None:
    assert len((await ask(world, native.port, "GET /large?pieces=100"))[2]) == 6_553_600
    raw = f"GET /large?pieces=3 HTTP/1.0\r\nHost: {world.host(native.port)}\r\n\r\n".encode()
    status, headers, body = await exchange(world.port, raw)
    assert (status, len(body), headers["connection"]) == (200, 196_608, "close")


async def test_a_connection_is_used_again(world: World, native: Native) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
    for _ in range(3):
        writer.write(f"GET /x HTTP/1.1\r\nHost: {world.host(native.port)}\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        await reader.readexactly(length)
    writer.close()
    assert len(world.connections) == 1  # the inner one, too


async def test_events_arrive_as_they_come_and_end_with_their_client(world: World, native: Native) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
    writer.write(f"GET /events HTTP/1.1\r\nHost: {world.host(native.port)}\r\n\r\n".encode())
    await reader.readuntil(b"data: 0")
    native.ticks.set()
    await reader.readuntil(b"data: 1")
    writer.close()
    await native.left.wait()


async def test_a_websocket(world: World, native: Native) -> None:
    async with connect(f"ws://{world.host(native.port)}/ws", host="127.0.0.1", port=world.port) as socket:
        for size in (1, 70_000, 900_000):
            await socket.send("m" * size)
            assert len(await socket.recv()) == size


async def test_clients_that_trust_the_installation_verify_previews(world: World, native: Native) -> None:
    assert world.options is not None
    trusting = ssl.create_default_context(cadata=read_ca(Path(world.options.data)))
    name = world.host(native.port).partition(":")[0]
    for port in (native.port, native.port, 1):
        found = f"{port}-{SANDBOX}.localhost"
        _, writer = await asyncio.open_connection("127.0.0.1", world.port, ssl=trusting, server_hostname=found)
        writer.close()
        await writer.wait_closed()
    for wrong in ("8000-x.example.org", f"a.{name}"):
        with pytest.raises(ssl.SSLCertVerificationError):
            await asyncio.open_connection("127.0.0.1", world.port, ssl=trusting, server_hostname=wrong)


async def test_a_first_message_of_tls_in_pieces(world: World, native: Native) -> None:
    assert world.options is not None
    trusting = ssl.create_default_context(cadata=read_ca(Path(world.options.data)))
    down, up = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = trusting.wrap_bio(down, up, server_hostname=world.host(native.port).partition(":")[0])
    reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
    while True:
        try:
            tls.do_handshake()
            break
        except ssl.SSLWantReadError:
            hello = up.read()
            for at in range(0, len(hello), 100):
                writer.write(hello[at : at + 100])
                await anyio.sleep(0.02)
            down.write(await reader.read(65536))
    writer.close()
    await writer.wait_closed()


async def test_tls_on_the_same_port(world: World, native: Native) -> None:
    trusting = ssl.create_default_context()
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    reader, writer = await asyncio.open_connection("127.0.0.1", world.port, ssl=trusting)
    writer.write(f"GET / HTTP/1.1\r\nHost: {world.host(native.port)}\r\nConnection: close\r\n\r\n".encode())
    answer = await reader.read()
    assert b'"x-forwarded-proto","https"' in answer.replace(b" ", b"")
    writer.close()
    await writer.wait_closed()
    url = f"wss://{world.host(native.port)}/ws"
    async with connect(url, host="127.0.0.1", port=world.port, ssl=trusting) as socket:
        await socket.send("over TLS")
        assert await socket.recv() == "over TLS"


async def test_a_private_preview(world: World, native: Native) -> None:
    world.private = True
    assert (await ask(world, native.port))[0] == 401
    assert (await ask(world, native.port, f"GET /?{QUERY}=wrong"))[0] == 401
    target, _ = shown((await ask(world, native.port, f"GET /a?b=1&{QUERY}={TOKEN}&c=2"))[2])
    assert target == "/a?b=1&c=2"
    for headers in (f"{HEADER.decode()}: {TOKEN}\r\n", f"Cookie: mine=1; pandastack-preview={TOKEN}\r\n"):
        status, _, body = await ask(world, native.port, headers=headers)
        assert status == 200 and TOKEN.encode() not in body


async def test_a_browser_changes_its_link_into_a_cookie(world: World, native: Native) -> None:
    world.private = True
    status, headers, _ = await ask(world, native.port, f"GET /a?{QUERY}={TOKEN}", NAVIGATION)
    assert (status, headers["location"]) == (303, "/a")
    cookie = headers["set-cookie"].partition(";")[0]
    assert (await ask(world, native.port, "GET /a", f"{NAVIGATION}Cookie: {cookie}\r\n"))[0] == 200


async def test_a_websocket_with_its_token_among_the_protocols(world: World, native: Native) -> None:
    world.private = True
    url = f"ws://{world.host(native.port)}/ws"
    token = PROTOCOL + TOKEN
    async with connect(url, host="127.0.0.1", port=world.port, subprotocols=[token]) as socket:  # type: ignore[list-item]
        assert socket.subprotocol == token
        await socket.send("x")
        assert await socket.recv() == "x"


async def test_by_a_link(world: World, native: Native) -> None:
    world.switches, world.paths = {"port": str(native.port)}, ("/docs",)
    raw = "GET /v1/p/{}{} HTTP/1.1\r\nHost: 127.0.0.1:1\r\nCookie: api=secret\r\nAuthorization: secret\r\n{}\r\n"
    link = lambda token, path, more="": exchange(world.port, raw.format(token, path, more).encode())  # noqa: E731
    status, headers, body = await link(TOKEN, "/docs/a?b")
    target, seen = shown(body)
    assert (status, target, seen["x-forwarded-prefix"]) == (200, "/docs/a?b", f"/v1/p/{TOKEN}")
    assert not {"cookie", "authorization"} & seen.keys()
    assert headers["content-security-policy"].startswith("sandbox ")
    assert (await link(TOKEN, "/other"))[0] == 403
    for trick in ("/docs/../other", "/docs/%2e%2e/other", "/docs/..%2fother", "/docs/%2e./x"):
        assert (await link(TOKEN, trick))[0] == 400
    assert (await link("pvt_wrong", "/docs"))[0] == 401
    status, headers, _ = await link(TOKEN, "/docs", "Sec-Fetch-Mode: navigate\r\n")
    assert status == 303
    assert headers["location"] == f"http://{world.host(native.port)}/docs?{QUERY}={TOKEN}"


async def test_a_client_that_leaves_ends_its_request(world: World, native: Native) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", world.port)
    writer.write(f"GET /events HTTP/1.1\r\nHost: {world.host(native.port)}\r\n\r\n".encode())
    await native.begun.wait()  # the server knows nothing of a client that leaves before
    writer.transport.abort()
    await native.left.wait()


async def test_what_is_reported(world: World, native: Native) -> None:
    async with connect(f"ws://{world.host(native.port)}/ws", host="127.0.0.1", port=world.port) as socket:
        await world.reported(lambda report: report.connected == (SANDBOX,) and not report.used)
        await (await socket.ping())
        assert {report.used for report in await world.reported(times=2)} == {()}  # a ping keeps nobody awake
        await socket.send("but this does")
        await world.reported(lambda report: report.used == (SANDBOX,))
