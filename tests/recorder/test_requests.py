"""What of a request goes out, and what of an answer is recorded."""

from __future__ import annotations

import pytest

from pandastack.recorder.requests import Refused, check_request, recorded_headers, sent_headers, wanted_url
from pandastack.recorder.urls import Url, parse_url

HTTPS = ("https", "example.org", 443)


@pytest.mark.parametrize(
    ("target", "host", "base", "found"),
    [
        (b"http://Example.ORG./a?b", b"other", None, "http://example.org/a?b"),
        (b"http://example.org:80", b"x", None, "http://example.org/"),
        (b"http://example.org:8080?q", b"x", None, "http://example.org:8080/?q"),
        (b"http://203.0.113.7/%7Ea/../b", b"x", None, "http://203.0.113.7/%7Ea/../b"),
        (b"/a", b"example.org", HTTPS, "https://example.org/a"),
        (b"/a", b"EXAMPLE.org:443", HTTPS, "https://example.org/a"),
        (b"//a", b"example.org", HTTPS, "https://example.org//a"),
    ],
)
def test_each_resource_has_one_name(target: bytes, host: bytes, base: tuple[str, str, int] | None, found: str) -> None:
    assert str(wanted_url(target, [(b"host", host)], base)) == found
    assert str(parse_url(found)) == found


@pytest.mark.parametrize(
    ("target", "host", "base", "status"),
    [
        (b"/a", b"example.org", None, 400),
        (b"ftp://example.org/", b"", None, 400),
        (b"http://me:secret@example.org/", b"", None, 400),
        (b"http://example.org/#part", b"", None, 400),
        (b"http://127.1/", b"", None, 400),
        (b"http://0x7f000001/", b"", None, 400),
        (b"http://[::1]/", b"", None, 400),
        (b"http://a..b/", b"", None, 400),
        (b"http://example.org:0/", b"", None, 400),
        (b"http://example.org:99999/", b"", None, 400),
        (b"http://" + b"a" * 9000, b"", None, 400),
        (b"/a", b"other.example.org", HTTPS, 421),
        (b"/a", b"example.org:444", HTTPS, 421),
        (b"*", b"example.org", HTTPS, 400),
    ],
    ids=range(14),
)
def test_what_names_no_resource_is_refused(
    target: bytes, host: bytes, base: tuple[str, str, int] | None, status: int
) -> None:
    with pytest.raises(Refused) as refused:
        wanted_url(target, [(b"host", host)], base)
    assert refused.value.status == status
    assert "secret" not in refused.value.reason


@pytest.mark.parametrize(
    ("method", "headers", "said"),
    [
        (b"POST", [], "only GET and HEAD"),
        (b"get", [], "only GET and HEAD"),
        (b"GET", [(b"authorization", b"Bearer t0ken")], "credentials"),
        (b"GET", [(b"content-length", b"3")], "body"),
        (b"GET", [(b"transfer-encoding", b"chunked")], "body"),
        (b"GET", [(b"upgrade", b"websocket")], "protocol"),
    ],
)
def test_what_is_never_recorded_is_refused(method: bytes, headers: list[tuple[bytes, bytes]], said: str) -> None:
    with pytest.raises(Refused, match=said) as refused:
        check_request(method, headers)
    assert (refused.value.status, "t0ken" in refused.value.reason) == (403, False)


def test_hosts_are_asked_for_the_whole_of_a_resource_by_nobody_in_particular() -> None:
    given = [
        (b"host", b"x"),
        (b"accept", b"text/html"),
        (b"accept", b"*/*"),
        (b"accept-encoding", b"gzip"),
        (b"cookie", b"a=b"),
        (b"range", b"bytes=5-"),
        (b"if-none-match", b'"x"'),
        (b"user-agent", b"pip/23"),
    ]
    assert sent_headers(Url("http", "example.org", 8080, "/"), given) == [
        (b"Host", b"example.org:8080"),
        (b"Accept", b"text/html, */*"),
        (b"Accept-Encoding", b"identity"),
        (b"User-Agent", b"pip/23"),
        (b"Connection", b"close"),
    ]


def test_only_what_answers_need_is_recorded() -> None:
    given = [
        (b"Content-Type", b"text/html"),
        (b"Set-Cookie", b"a=b"),
        (b"Date", b"today"),
        (b"Location", b"x" * 5000),
        (b"Content-Encoding", b"gzip"),
    ]
    plain = {"content-type": "text/html", "content-encoding": "gzip"}
    assert recorded_headers(given, "text/html") == plain
    assert recorded_headers([*given, (b"Vary", b"Accept-Encoding, ACCEPT")], "a/b") == {"accept": "a/b", **plain}
    assert recorded_headers([*given, (b"Vary", b"accept")], "") == plain
