"""Which client a request has, by what proxies say about it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pandastack.model.forwarded import MOST_HOPS, Client, client_of, parse_networks

TRUSTED = parse_networks("127.0.0.1, 10.1.0.0/16,fd00::/8")
PROXY = Client("127.0.0.1", "http")


def address(*values: str, peer: str = "127.0.0.1") -> str:
    """The client's address; each value is a header field of its own."""
    headers = [(b"x-forwarded-for", value.encode("latin-1")) for value in values]
    return client_of(headers, Client(peer, "http"), TRUSTED).address


def scheme(*values: bytes, peer: Client = PROXY) -> str:
    return client_of([(b"x-forwarded-proto", value) for value in values], peer, TRUSTED).scheme


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ((), "127.0.0.1"),
        (("",), "127.0.0.1"),
        (("192.0.2.1",), "192.0.2.1"),
        (("2001:DB8::1",), "2001:db8::1"),
        (("::ffff:192.0.2.1",), "192.0.2.1"),
        # What a client sent itself is before what proxies appended.
        (("6.6.6.6, 192.0.2.1",), "192.0.2.1"),
        (("6.6.6.6", "192.0.2.1"), "192.0.2.1"),
        (("127.0.0.1, 192.0.2.1",), "192.0.2.1"),
        # Proxies behind one another.
        (("6.6.6.6, 192.0.2.1, 10.1.2.3",), "192.0.2.1"),
        (("192.0.2.1, fd00::5,10.1.2.3",), "192.0.2.1"),
        (("192.0.2.1, ::ffff:10.1.2.3",), "192.0.2.1"),
        # The client is one of the proxies.
        (("10.1.9.9",), "10.1.9.9"),
        # What is not an address says nothing, and hides what is before it.
        (("192.0.2.1, unknown",), "127.0.0.1"),
        (("192.0.2.1, , 10.1.2.3",), "10.1.2.3"),
        (("192.0.2.1, 10.1.2.3:443",), "127.0.0.1"),
        (("192.0.2.1, \xb2, 10.1.2.3",), "10.1.2.3"),
    ],
)
def test_the_address_that_a_trusted_proxy_names(said: tuple[str, ...], found: str) -> None:
    assert address(*said) == found


@pytest.mark.parametrize("peer", ["192.0.2.7", "127.0.0.2", "::1", "", "unknown"])
def test_other_peers_say_nothing(peer: str) -> None:
    headers = [(b"x-forwarded-for", b"10.1.0.1"), (b"x-forwarded-proto", b"https")]
    assert client_of(headers, Client(peer, "http"), TRUSTED) == Client(peer, "http")
    assert client_of(headers, PROXY, ()) == PROXY


def test_the_scheme_is_the_last_one_that_there_is() -> None:
    assert scheme() == "http"
    assert scheme(b"https") == scheme(b" HTTPS ") == scheme(b"wss") == "https"
    assert scheme(b"https, http") == scheme(b"https", b"http") == scheme(b"ws") == "http"
    assert scheme(b"javascript") == scheme(b"") == "http"
    assert scheme(b"gopher", peer=Client("127.0.0.1", "https")) == "https"
    assert scheme(b"http", peer=Client("127.0.0.1", "https")) == "http"


def test_only_the_last_hops_are_looked_at() -> None:
    assert address("192.0.2.1" + ", 10.1.0.1" * (MOST_HOPS - 1)) == "192.0.2.1"
    assert address("192.0.2.1" + ", 10.1.0.1" * MOST_HOPS) == "10.1.0.1"


def test_other_headers_are_believed_from_nobody() -> None:
    names = (b"forwarded", b"x-real-ip", b"x-forwarded-host", b"x-forwarded-port", b"x-forwarded-ssl", b"via")
    assert client_of([(name, b"for=192.0.2.1;proto=https") for name in names], PROXY, TRUSTED) == PROXY


@given(st.lists(st.binary(max_size=40), max_size=4))
def test_what_a_client_sends_never_counts_behind_a_proxy_that_appends(junk: list[bytes]) -> None:
    headers = [(b"x-forwarded-for", each) for each in [*junk, b"192.0.2.1"]]
    assert client_of(headers, PROXY, TRUSTED).address == "192.0.2.1"


@pytest.mark.parametrize("text", ["10.0.0.1/8", "localhost", "10.0.0.0/33", "1.2.3", "0x7f.1", "*"])
def test_networks_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match=text.partition("/")[0].replace("*", r"\*")):
        parse_networks(f"127.0.0.1,{text}")
