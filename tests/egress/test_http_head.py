"""Heads of requests and the ends of their bodies."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pandastack.egress.http_head import HEAD_LIMIT, Body, Head, MalformedHead, looks_like_http, parse_head


def head(*lines: str) -> Head:
    parsed = parse_head("\r\n".join([*lines, "", "rest"]).encode("latin-1"))
    assert parsed is not None
    return parsed


def test_forms_of_targets() -> None:
    plain = head("GET /x HTTP/1.1", "Host: Example.org:8080")
    assert (plain.name, plain.port, plain.forwarded) == ("example.org", 8080, False)
    absolute = head("GET http://example.org/x HTTP/1.1", "Host: example.org")
    assert (absolute.name, absolute.port, absolute.forwarded) == ("example.org", 80, True)
    secure = head("GET https://example.org HTTP/1.1", "Host: example.org")
    assert secure.port == 443
    connect = head("CONNECT example.org:22 HTTP/1.1", "Host: example.org:22")
    assert (connect.name, connect.port, connect.connect) == ("example.org", 22, True)
    address = head("GET / HTTP/1.1", "Host: 203.0.113.5")
    assert (address.name, address.address) == (None, "203.0.113.5")
    old = head("GET / HTTP/1.0")
    assert (old.name, old.address) == (None, None)


def test_bodies_and_upgrades() -> None:
    assert head("POST / HTTP/1.1", "Host: a.test", "Content-Length: 12").length == 12
    assert head("POST / HTTP/1.1", "Host: a.test", "Transfer-Encoding: chunked").length is None
    assert head("GET / HTTP/1.1", "Host: a.test").length == 0
    assert head("GET / HTTP/1.1", "Host: a.test", "Upgrade: WebSocket").upgrade == "websocket"


@pytest.mark.parametrize(
    "lines",
    [
        ["GET / HTTP/1.1"],
        ["GET / HTTP/1.1", "Host: a.test", "Host: b.test"],
        ["GET / HTTP/1.1", "Host: "],
        ["GET / HTTP/1.1", "Host: a.test:99999"],
        ["GET / HTTP/1.1", "Host: a.test:0"],
        ["GET / HTTP/1.1", "Host: user@a.test"],
        ["GET / HTTP/1.1", "Host: [::1]"],
        ["GET / HTTP/1.1", "Host: 127.1"],
        ["GET / HTTP/1.1", "Host : a.test"],
        ["GET / HTTP/1.1", "Host: a.test", " folded: x"],
        ["GET / HTTP/1.1", "Host: a.test", "X: a\rHost: b.test"],
        ["GET / HTTP/1.1", "Host: a.test", "X: a\nHost: b.test"],
        ["GET / HTTP/1.1", "Host: a.test", "X: \0"],
        ["GET  / HTTP/1.1", "Host: a.test"],
        ["GET /\tx HTTP/1.1", "Host: a.test"],
        ["GET / HTTP/2.0", "Host: a.test"],
        ["GET /"],
        ["GET x HTTP/1.1", "Host: a.test"],
        ["GET http://b.test/ HTTP/1.1", "Host: a.test"],
        ["GET http://u@b.test/ HTTP/1.1", "Host: b.test"],
        ["CONNECT b.test:443 HTTP/1.1", "Host: a.test:443"],
        ["CONNECT b.test HTTP/1.1", "Host: b.test"],
        ["POST / HTTP/1.1", "Host: a.test", "Content-Length: 1", "Content-Length: 1"],
        ["POST / HTTP/1.1", "Host: a.test", "Content-Length: +1"],
        ["POST / HTTP/1.1", "Host: a.test", "Content-Length: 1", "Transfer-Encoding: chunked"],
        ["POST / HTTP/1.1", "Host: a.test", "Transfer-Encoding: gzip, chunked"],
        ["POST / HTTP/1.1", "Host: a.test", "Transfer-Encoding: xchunked"],
    ],
)
def test_what_two_servers_could_read_differently(lines: list[str]) -> None:
    with pytest.raises(MalformedHead):
        head(*lines)


def test_lines_need_carriage_returns() -> None:
    for bare in (b"GET / HTTP/1.1\nHost: a.test\n\n", b"GET / HTTP/1.1\nHost: a.test\n\r\n"):
        with pytest.raises(MalformedHead):
            parse_head(bare)


def test_heads_are_bounded() -> None:
    assert parse_head(b"GET / HTTP/1.1\r\nHost: a.test\r\n") is None
    with pytest.raises(MalformedHead):
        parse_head(b"GET / HTTP/1.1\r\nX: " + b"x" * HEAD_LIMIT)


@pytest.mark.parametrize(
    ("data", "http"),
    [
        (b"GET / HTTP/1.1\r\n", True),
        (b"\r\nGET /", True),
        (b"get /", True),
        (b"GE", None),
        (b"", None),
        (b"BREW /pot HTTP/1.1\r\n", True),
        (b"BREW /pot", None),
        (b"PRI * HTTP/2.0\r\n", True),
        (b"EHLO mail.test\r\n", False),
        (b"SSH-2.0-OpenSSH_9.2p1 Debian\r\n", False),
        (b"\0\0\0\x08\x04\xd2\x16\x2f", False),
    ],
)
def test_what_looks_like_http(data: bytes, http: bool | None) -> None:
    assert looks_like_http(data) is http


def ends(body: Body, data: bytes, size: int) -> int | None:
    """Where a body ends that comes in pieces."""
    passed = 0
    while passed < len(data):
        taken, done = body.take(memoryview(data[passed : passed + size]))
        passed += taken
        if done:
            return passed
    return None


CHUNKED = b"3\r\nabc\r\n1A;x=y\r\n" + b"z" * 26 + b"\r\n0\r\nT: x\r\n\r\n"


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_ends_of_bodies(size: int) -> None:
    assert ends(Body(None), CHUNKED + b"GET /next", size) == len(CHUNKED)
    assert ends(Body(10), b"0123456789GET /next", size) == 10
    assert Body(0).take(memoryview(b"GET")) == (0, True)


@pytest.mark.parametrize(
    "broken", [b"3\nabc", b"3 \r\n", b"x\r\n", b"\r\n", b"3\r\nabcd\r\n", b"-1\r\n", b"3\r\nabc\n0\r\n"]
)
def test_broken_chunks(broken: bytes) -> None:
    with pytest.raises(MalformedHead):
        ends(Body(None), broken, 1)


@given(st.binary(max_size=200))
def test_no_bytes_break_it(data: bytes) -> None:
    for parse in (parse_head, looks_like_http, lambda each: ends(Body(None), each, 5)):
        try:
            parse(data)
            parse(b"GET / HTTP/1.1\r\nHost: " + data + b"\r\n\r\n")
        except MalformedHead:
            pass
