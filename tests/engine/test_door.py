"""The way out of the namespace in which images are fetched, over real sockets."""

from __future__ import annotations

import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, closing

import anyio
import anyio.to_thread
import pytest

from pandastack.engine.build.door import Door, Policy
from pandastack.host.tasks import beside
from pandastack.model.network import FORBIDDEN
from pandastack.model.registries import parse_allowed

pytestmark = pytest.mark.anyio


@pytest.fixture
def echo() -> Iterator[int]:
    """A server that answers the first line of each connection with itself, and a million bytes to ``much``."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(client,), daemon=True).start()

    def answer(client: socket.socket) -> None:
        try:
            with client:
                data = client.recv(65536)
                client.sendall(b"x" * 1_000_000 if data.startswith(b"much") else b"heard " + data)
        except OSError:
            pass

    threading.Thread(target=serve, daemon=True).start()
    with closing(listener):
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


@asynccontextmanager
async def opened(door: Door) -> AsyncIterator[Callable[[bytes, bytes], bytes]]:
    """Serve; what is yielded sends a request, then more if it was let through, and returns the whole answer."""
    listener = socket.create_server(("127.0.0.1", 0))
    address = listener.getsockname()
    listener.setblocking(False)

    def ask(request: bytes, more: bytes = b"") -> bytes:
        answer = b""
        with socket.create_connection(address, 10) as sock:
            sock.sendall(request)
            try:
                while piece := sock.recv(65536):
                    answer += piece
                    if more and answer.endswith(b"\r\n\r\n") and b" 200 " in answer:
                        sock.sendall(more)
                        more = b""
            except ConnectionResetError:
                answer += b"(reset)"
        return answer

    with closing(listener):
        async with beside(lambda: door.serve(listener)):
            yield ask


async def ask_in_thread(ask: Callable[[bytes, bytes], bytes], request: str, more: str = "") -> str:
    with anyio.fail_after(30):
        return (await anyio.to_thread.run_sync(ask, request.encode(), more.encode())).decode("latin-1")


def connect_to(target: str) -> str:
    return f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n"


def door_for(allowed: str = "", forbidden: Sequence[str] = FORBIDDEN, budget: int = 10_000_000, **env: str) -> Door:
    return Door(Policy(parse_allowed(allowed), forbidden), budget, environment=env)


async def test_what_is_allowed_is_connected(echo: int) -> None:
    for door in (door_for(f"https://127.0.0.1:{echo}"), door_for(forbidden=())):
        async with opened(door) as ask:
            answer = await ask_in_thread(ask, connect_to(f"127.0.0.1:{echo}"), "hello")
        assert answer.endswith("heard hello") and " 200 " in answer and door.received == len("heard hello")


@pytest.mark.parametrize(
    "target",
    [
        *("127.0.0.1:{}", "localhost:{}", "10.1.2.3:443", "192.168.1.1:443", "172.16.0.9:5000", "169.254.169.254:80"),
        *("100.64.0.1:443", "0.0.0.0:443", "224.0.0.1:443"),
    ],
)
async def test_addresses_that_are_not_public_are_refused(echo: int, target: str) -> None:
    """By whatever name: it is the address that would be dialled which decides."""
    door = door_for(f"127.0.0.1:{echo + 1}")
    async with opened(door) as ask:
        answer = await ask_in_thread(ask, connect_to(target.format(echo)), "hello")
    assert answer.startswith("HTTP/1.1 403") and "heard" not in answer
    assert len(door.refused) == 1 and "PANDASTACK_REGISTRIES" in door.refused[0]


@pytest.mark.parametrize(
    "request_",
    [
        *(
            "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
            "CONNECT x HTTP/1.1\r\nHost: x\r\n\r\n",
            "CONNECT [::1]:1 HTTP/1.1\r\n\r\n",
        ),
        *(
            "CONNECT 127.1:80 HTTP/1.1\r\nHost: 127.1:80\r\n\r\n",
            "CONNECT 0x7f000001:80 HTTP/1.1\r\nHost: 0x7f000001:80\r\n\r\n",
        ),
        *("CONNECT 2130706433:80 HTTP/1.1\r\nHost: 2130706433:80\r\n\r\n", "\x16\x03\x01\x02\x00\r\n\r\n"),
        "GET http://r.example/ HTTP/1.1\r\nHost: other.example\r\n\r\n",
    ],
    ids=lambda each: repr(each[:28]),
)
async def test_other_requests_are_refused(request_: str) -> None:
    door = door_for(forbidden=())
    async with opened(door) as ask:
        answer = await ask_in_thread(ask, request_)
    assert answer.startswith(("HTTP/1.1 400", "HTTP/1.1 403")), answer


async def test_plain_http_is_for_the_registries_that_may(echo: int) -> None:
    request = f"GET http://127.0.0.1:{echo}/v2/?a=b HTTP/1.1\r\nHost: 127.0.0.1:{echo}\r\nProxy-Connection: x\r\n\r\n"
    async with opened(door_for(f"127.0.0.1:{echo}")) as ask:
        answer = await ask_in_thread(ask, request)
    first, *fields = answer.removeprefix("heard ").split("\r\n")
    assert first == "GET /v2/?a=b HTTP/1.1" and "Connection: close" in fields
    assert not any(each.startswith("Proxy-") for each in fields)
    for allowed in (f"https://127.0.0.1:{echo}", ""):
        door = door_for(allowed, forbidden=())
        async with opened(door) as ask:
            assert (await ask_in_thread(ask, request)).startswith("HTTP/1.1 403")
        assert "plain HTTP" in door.refused[0]


async def test_more_bytes_than_expected_end_the_connection(echo: int) -> None:
    door = door_for(forbidden=(), budget=100_000)
    async with opened(door) as ask:
        answer = await ask_in_thread(ask, connect_to(f"127.0.0.1:{echo}"), "much")
    assert door.is_exhausted and len(answer) < 1_000_000


async def test_who_does_not_answer_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    door = door_for(forbidden=())
    async with opened(door) as ask:
        assert (await ask_in_thread(ask, connect_to(f"127.0.0.1:{port}"))).startswith("HTTP/1.1 502")
        assert (await ask_in_thread(ask, connect_to("no-such-host.invalid:443"))).startswith("HTTP/1.1 502")
    assert "nothing answers" in door.failed[0] and "cannot be resolved" in door.failed[1]


async def test_the_hosts_own_proxy_is_used_and_still_hears_of_no_private_address(echo: int) -> None:
    """The proxy here is a second door, behind which everything is allowed."""
    behind = door_for(forbidden=())
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    proxy = f"http://user:word@127.0.0.1:{listener.getsockname()[1]}"
    with closing(listener):
        async with beside(lambda: behind.serve(listener)):
            door = door_for(forbidden=("10.0.0.0/8",), HTTPS_PROXY=proxy, NO_PROXY="localhost")
            async with opened(door) as ask:
                answer = await ask_in_thread(ask, connect_to(f"127.0.0.1:{echo}"), "hello")
                assert answer.endswith("heard hello") and behind.received == len("heard hello")
                assert (await ask_in_thread(ask, connect_to("10.0.0.1:80"))).startswith("HTTP/1.1 403")
                direct = await ask_in_thread(ask, connect_to(f"localhost:{echo}"), "hello")
                assert direct.endswith("heard hello") and behind.received == len("heard hello")
