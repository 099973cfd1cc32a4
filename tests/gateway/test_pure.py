"""Names, tokens, headers and frames: the pure parts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pandastack.errors import BadRequestError
from pandastack.gateway.http.frames import FrameWatch
from pandastack.gateway.http.heads import Inward, outward, own_address, own_cookie
from pandastack.gateway.http.names import (
    Preview,
    allowed_path,
    check_plain_path,
    function_of,
    host_name,
    preview_of,
    token_path,
)
from pandastack.gateway.http.tokens import cookie, take_token

ID = "0a1b2c3d-0000-4000-8000-000000000000"
HOW = Inward(3000, f"3000-{ID}.preview.test:8081", "http", "127.0.0.1")


@pytest.mark.parametrize(
    ("host", "preview"),
    [
        (f"8000-{ID}.preview.test", Preview(8000, ID)),
        (f"8000-{ID.upper()}.Preview.Test.:443", Preview(8000, ID)),
        (f"8000-{ID}.localhost", Preview(8000, ID)),
        (f"x.8000-{ID}.preview.test", None),
        (f"8000-{ID}.preview.test.evil", None),
        (f"8000-{ID}preview.test", None),
        ("preview.test", None),
        ("127.0.0.1:80", None),
        ("[::1]:80", None),
    ],
)
def test_host_names(host: str, preview: Preview | None) -> None:
    assert preview_of(host_name(host), ["preview.test", "localhost"]) == preview


@pytest.mark.parametrize(
    ("host", "function"),
    [
        (f"fn-{ID}.preview.test", ID),
        (f"FN-{ID.upper()}.Localhost:8081", ID),
        (f"fn-{ID}.preview.test.evil", None),
        (f"x.fn-{ID}.preview.test", None),
        (f"{ID}.preview.test", None),
        (f"8000-{ID}.preview.test", None),
        (f"fn-{ID}0.preview.test", None),
        ("fn-x.preview.test", None),
    ],
)
def test_host_names_of_functions(host: str, function: str | None) -> None:
    assert function_of(host_name(host), ["preview.test", "localhost"]) == function
    assert preview_of(f"fn-{ID}.localhost", ["localhost"]) is None


@pytest.mark.parametrize("host", ["", "a b", "a..b", "-", "a:b", "a:99999", "x" * 300, "a/b", "a@b", "[", "[::1"])
def test_bad_hosts(host: str) -> None:
    with pytest.raises(BadRequestError):
        host_name(host)


@pytest.mark.parametrize("port", [0, 65536, 99999])
def test_bad_ports_of_a_name(port: int) -> None:
    with pytest.raises(BadRequestError, match="port"):
        preview_of(f"{port}-{ID}.localhost", ["localhost"])


@pytest.mark.parametrize(
    ("target", "found"),
    [
        ("/v1/p/abc/x/y?z", ("abc", "/x/y?z")),
        ("/v1/p/abc", ("abc", "/")),
        ("/v1/p/abc?z", ("abc", "/?z")),
        ("/v1/p/", None),
        ("/v1/p/a%20b/", None),
        ("/v1/x", None),
    ],
)
def test_paths_of_links(target: str, found: tuple[str, str] | None) -> None:
    assert token_path(target) == found


def test_prefixes_of_paths() -> None:
    assert allowed_path("/docs/x?/../", ["/docs"]) and allowed_path("/docs", ["/docs/"]) and allowed_path("/any", [])
    assert not allowed_path("/docsx", ["/docs"])
    for path in ("/a/../b", "/a/%2E%2e", "/%2e/", "/a%2Fb", "/a%5cb", "/a/..", "/a%00"):
        with pytest.raises(BadRequestError):
            check_plain_path(path)
    check_plain_path("/a..b/.well-known?x=/../")


def test_the_first_place_of_a_token_counts_and_none_is_passed_on() -> None:
    headers = [
        (b"X-Pandastack-Preview-Token", b"one"),
        (b"Cookie", b"a=1; __Host-pandastack-preview=three; b=2"),
        (b"Sec-WebSocket-Protocol", b"chat, pandastack.token.four"),
    ]
    found = take_token("/x?a=1&pandastack_token=two", headers)
    assert (found.token, found.target) == ("one", "/x?a=1")
    assert found.headers == ((b"Cookie", b"a=1; b=2"), (b"Sec-WebSocket-Protocol", b"chat"))
    assert take_token("/x?pandastack_token=two", headers[1:]).token == "two"
    assert take_token("/x", headers[1:]).token == "four"
    assert take_token("/x", headers[1:2]).token == "three"
    assert take_token("/x?not_pandastack_token=1", []).token is None
    assert take_token("/x?pandastack_token=%00", []).token == "invalid"


def test_the_cookie_is_for_one_host() -> None:
    assert cookie("t", tls=True, seconds=9).startswith("__Host-pandastack-preview=t; Path=/;")
    assert "Secure" not in cookie("t", tls=False, seconds=9)
    assert "domain" not in cookie("t", tls=True, seconds=9).lower()


@pytest.mark.parametrize("value", ["a=b; Domain=.test; Path=/", "a=b;domain=x; Path=/", "a=b; DOMAIN = x; Path=/"])
def test_cookies_lose_their_domain(value: str) -> None:
    assert own_cookie(value.encode()) == b"a=b; Path=/"


def test_what_a_page_below_a_path_cannot_set() -> None:
    given = [(b"Set-Cookie", b"a=b"), (b"Service-Worker-Allowed", b"/"), (b"Clear-Site-Data", b"*"), (b"X", b"1")]
    below = Inward(1, "api", "http", "", prefix="/v1/p/t")
    names = [name for name, _ in outward(given, below)]
    assert names == [b"X", b"Content-Security-Policy", b"Referrer-Policy"]


def test_a_length_beside_an_encoding_is_not_passed_on() -> None:
    given = [(b"Content-Length", b"3"), (b"Transfer-Encoding", b"chunked")]
    assert outward(given, HOW) == []


@pytest.mark.parametrize(
    ("location", "rewritten"),
    [
        ("http://localhost:3000/a", f"http://{HOW.authority}/a"),
        ("http://localhost:3000", f"http://{HOW.authority}/"),
        ("https://localhost:3000/a?b", f"http://{HOW.authority}/a?b"),
        ("http://localhost:4000/a", "http://localhost:4000/a"),
        ("/a", "/a"),
        ("//evil/a", "//evil/a"),
        ("https://example.org/", "https://example.org/"),
        ("http://[", "http://["),
    ],
)
def test_redirects(location: str, rewritten: str) -> None:
    assert own_address(location, HOW) == rewritten


def frame(opcode: int, payload: bytes, mask: bool = True) -> bytes:
    size = len(payload)
    short = size if size < 126 else 126 if size < 65536 else 127
    length = b"" if size < 126 else size.to_bytes(2 if short == 126 else 8)
    return bytes([0x80 | opcode, (0x80 if mask else 0) | short]) + length + (b"mask" if mask else b"") + payload


@given(
    frames=st.lists(
        st.tuples(st.sampled_from([1, 2, 8, 9, 10]), st.sampled_from([0, 1, 125, 126, 70_000])), max_size=6
    ),
    step=st.sampled_from([1, 3, 1000, 100_000]),
)
def test_frames_in_pieces(frames: list[tuple[int, int]], step: int) -> None:
    data = b"".join(frame(opcode, b"x" * size) for opcode, size in frames)
    watch = FrameWatch()
    seen = [watch.feed(data[at : at + step]) for at in range(0, min(len(data), 3000 * step), step)]
    if len(data) <= 3000 * step:
        assert any(seen) == any(opcode in (1, 2) for opcode, _ in frames)
