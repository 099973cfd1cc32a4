"""The gateway's bench: what needs no machine."""

from __future__ import annotations

import anyio
import pytest

from pandastack.bench.gateway import _SERVER, Added, _answer, rows
from pandastack.errors import PandastackError

pytestmark = pytest.mark.anyio


def test_the_gateway_is_compared_with_the_raw_tunnel() -> None:
    added = Added([5.0, 6.0, 7.0], [4.0, 4.0, 2.0], [90.0, 80.0], [100.0, 100.0])
    found = {row.name: row for row in rows(added)}
    assert [(row.name, row.unit) for row in found.values()] == [
        ("tunnel_request", "ms"),
        ("gateway_request", "ms"),
        ("gateway_added", "ms"),
        ("tunnel_requests_per_s", "1/s"),
        ("gateway_requests_per_s", "1/s"),
    ]
    assert (found["gateway_request"].ratio, found["gateway_added"].p50) == (1.5, 2.0)  # the median of differences
    assert found["gateway_requests_per_s"].ratio == 0.8


def pieces(*data: bytes) -> object:
    left = [*data, b"", b""]

    async def receive() -> bytes:
        return left.pop(0)

    return receive


@pytest.mark.parametrize(
    "data",
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",),
        (b"HTTP/1.1 200 OK\r\nContent-", b"Length: 5\r\n\r\nhe", b"llo"),
        (b"HTTP/1.1 200 OK\r\n\r\n",),
    ],
)
async def test_an_answer_in_pieces(data: tuple[bytes, ...]) -> None:
    await _answer(pieces(*data))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ((), "without an answer"),
        ((b"HTTP/1.1 200 OK\r\n",), "without an answer"),
        ((b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel",), "in the middle"),
        ((b"HTTP/1.1 502 \r\nContent-Length: 4\r\n\r\nnone",), "502 : none"),
    ],
)
async def test_what_is_no_answer_ends_the_bench(data: tuple[bytes, ...], told: str) -> None:
    with anyio.fail_after(30), pytest.raises(PandastackError, match=told):
        await _answer(pieces(*data))  # type: ignore[arg-type]


def test_the_server_is_a_program() -> None:
    compile(_SERVER, "server", "exec")
