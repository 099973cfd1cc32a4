"""Server names out of real and broken ClientHellos."""

from __future__ import annotations

import ssl
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pandastack.egress.client_hello import (
    HELLO_LIMIT,
    MalformedHello,
    looks_like_tls,
    parse_client_hello,
    repeated_hello,
)
from tests.support.tls import client_hello, extension, handmade_hello, in_records, server_name


def test_a_real_hello() -> None:
    hello = client_hello("Example.org")
    parsed = parse_client_hello(hello)
    assert parsed is not None
    assert (parsed.name, parsed.encrypted, parsed.size) == ("example.org", False, len(hello))


def test_what_follows_the_hello_is_not_part_of_it() -> None:
    hello = client_hello("example.org")
    parsed = parse_client_hello(hello + b"\x17\x03\x03\0\1x")
    assert parsed is not None and parsed.size == len(hello)


def test_every_beginning_is_incomplete() -> None:
    hello = client_hello("example.org")
    assert all(looks_like_tls(hello[:size]) for size in range(1, 8))
    assert all(parse_client_hello(hello[:size]) is None for size in range(len(hello)))


@pytest.mark.parametrize("size", [1, 3, 100])
def test_a_hello_in_many_records(size: int) -> None:
    parsed = parse_client_hello(in_records(client_hello("example.org"), size))
    assert parsed is not None and parsed.name == "example.org"


def test_without_a_name() -> None:
    parsed = parse_client_hello(client_hello(None))
    assert parsed is not None and parsed.name is None
    parsed = parse_client_hello(handmade_hello(server_name(b"203.0.113.1")))
    assert parsed is not None and parsed.name is None


def test_protocols_that_a_client_offers() -> None:
    assert protocols(client_hello("example.org")) == ()
    assert protocols(handmade_hello(extension(16, b"\0\x0e\x02h2\x0apostgresql"))) == (b"h2", b"postgresql")


def protocols(hello: bytes) -> tuple[bytes, ...]:
    parsed = parse_client_hello(hello)
    assert parsed is not None
    return parsed.protocols


@pytest.mark.parametrize("body", [b"", b"\0", b"\0\3\2h2x", b"\0\2\2h", b"\0\1\0"])
def test_malformed_lists_of_protocols(body: bytes) -> None:
    with pytest.raises(MalformedHello):
        parse_client_hello(handmade_hello(extension(16, body)))


@pytest.mark.parametrize("kind", [0xFE0D, 0xFFCE])
def test_encrypted_hellos_are_seen(kind: int) -> None:
    parsed = parse_client_hello(handmade_hello(server_name(b"front.test"), extension(kind, b"secret")))
    assert parsed is not None
    assert (parsed.name, parsed.encrypted) == ("front.test", True)


@pytest.mark.parametrize(
    "hello",
    [
        handmade_hello(server_name(b"a.test"), server_name(b"b.test")),
        handmade_hello(extension(0, b"\0\x0c\0\0\6a.test\0\0\6b.test")),
        handmade_hello(extension(0, b"\0\5\1\0\2ab")),
        handmade_hello(extension(0, b"\0\xff\0\0\2ab")),
        handmade_hello(extension(0, b"")),
        b"\x16\x03\x01\0\4\2\0\0\0",  # a ServerHello
        b"\x16\x03\x01\0\0",
        b"\x16\x03\x01\xff\xff",
        b"\x15\x03\x01\0\2\1\0",
        b"\x16\x03\x01\0\4\1\xff\xff\xff",
        in_records(b"\x16\x03\x01\0\4\1\0\0\2", 1)[:24] + b"\x17\x03\x01\0\1x",
    ],
)
def test_broken_ones(hello: bytes) -> None:
    with pytest.raises(MalformedHello):
        assert parse_client_hello(hello) is None


def test_it_is_bounded() -> None:
    with pytest.raises(MalformedHello):
        parse_client_hello(b"\x16\x03\x01\x40\0\1\0\xff\xf0" + b"\0" * HELLO_LIMIT)


@given(st.binary(max_size=300))
def test_no_bytes_break_it(data: bytes) -> None:
    for each in (data, b"\x16\x03\x01" + data, b"\x16\x03\x01\0\x40\1\0\0\x3c" + data):
        with suppress(MalformedHello):
            parse_client_hello(each)
        repeated_hello(each)


def test_a_second_hello() -> None:
    ccs, alert, hello = b"\x14\x03\x03\0\1\1", b"\x15\x03\x03\0\2\1\0", client_hello("b.test")
    assert repeated_hello(ccs + hello) == hello
    assert repeated_hello(alert + ccs + hello) == hello
    assert repeated_hello(hello) == hello
    assert repeated_hello(ccs) is None
    assert repeated_hello(ccs + hello[:5]) is None
    assert repeated_hello(ccs + b"\x17\x03\x03\0\1x") == b""
    assert repeated_hello(b"\x16\x03\x03\0\x46\x10\0\0") == b""  # a ClientKeyExchange
    empty = b"\x16\x03\x03\0\0" + hello
    assert repeated_hello(empty) == empty
    with pytest.raises(MalformedHello):
        parse_client_hello(empty)


def test_tls_1_2(recwarn: pytest.WarningsRecorder) -> None:
    parsed = parse_client_hello(client_hello("old.test", ssl.TLSVersion.TLSv1_2))
    assert parsed is not None and parsed.name == "old.test"
