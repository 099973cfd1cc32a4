"""The lock's one spelling."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pandastack.errors import BadRequestError
from pandastack.recorder.lock import HEADER, HEADERS, Entry, Lock, lock_of, parse_lock

DIGEST = "ab" * 32
ONE = Entry("GET", "https://example.org/a?b=c", 200, 12, DIGEST, {"content-type": "text/plain; charset=utf-8"})

texts = st.text(st.characters(min_codepoint=32, max_codepoint=255).filter(lambda c: c != "\x7f"), min_size=1).filter(
    lambda text: text == text.strip() and not any("\x7f" <= c <= "\x9f" for c in text)
)
entries = st.builds(
    Entry,
    st.sampled_from(("GET", "HEAD")),
    st.text(string.ascii_letters + string.digits + "/?&=%~.-_:@!$'()*+,;", max_size=30).map(
        "http://a.example/{}".format
    ),
    st.integers(100, 599),
    st.integers(0, 10**12),
    st.binary(min_size=32, max_size=32).map(bytes.hex),
    st.dictionaries(st.sampled_from(HEADERS), texts, max_size=3),
)


@given(st.lists(entries, max_size=8))
def test_what_is_written_is_read_again_in_any_order(found: list[Entry]) -> None:
    lock = lock_of(found)
    assert parse_lock(lock.text) == lock
    assert lock_of(reversed(lock.entries)).text == lock.text


def test_a_line_is_readable() -> None:
    assert Lock((ONE,)).text == (
        f"{HEADER}\nGET https://example.org/a?b=c 200 12 {DIGEST} content-type=text/plain;%20charset=utf-8\n"
    )
    assert parse_lock(f"{HEADER}\n") == Lock()


LINE = ONE.line()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "line 1: must be"),
        (f"{LINE}\n", "line 1: must be"),
        (f"{HEADER}\n{LINE}", "not complete"),
        (f"{HEADER}\r\n{LINE}\r\n", "line 1"),
        (f"{HEADER}\n\n", "line 2: malformed"),
        (f"{HEADER}\n{LINE}\n<<<<<<< HEAD\n", "line 3: malformed"),
        (f"{HEADER}\n{LINE}\n{LINE}\n", "line 3: the entries are not sorted"),
        (f"{HEADER}\n{LINE}\n{LINE.replace('/a?', '/A?')}\n", "line 3: the entries are not sorted"),
        (f"{HEADER}\n{LINE.replace('GET', 'POST')}\n", "line 2: malformed"),
        (f"{HEADER}\n{LINE.replace(' 12 ', ' 012 ')}\n", "line 2: malformed"),
        (f"{HEADER}\n{LINE.replace(' 200 ', ' 999 ')}\n", "line 2: malformed"),
        (f"{HEADER}\n{LINE.replace(DIGEST, DIGEST.upper())}\n", "line 2: malformed"),
        (f"{HEADER}\n{LINE.replace('https', 'ftp')}\n", "line 2: malformed URL"),
        (f"{HEADER}\n{LINE.replace('example.org', 'EXAMPLE.org')}\n", "line 2: not in the one spelling"),
        (f"{HEADER}\n{LINE.replace('example.org', 'example.org:443')}\n", "line 2: not in the one spelling"),
        (f"{HEADER}\n{LINE.replace('example.org', 'me:pass@example.org')}\n", "line 2: a user name or password"),
        (f"{HEADER}\n{LINE.replace('text/plain', 'te%78t')}\n", "line 2: not in the one spelling"),
        (f"{HEADER}\n{LINE} set-cookie=a\n", "line 2: malformed header"),
        (f"{HEADER}\n{LINE} location=%0D%0AA:b\n", "line 2: malformed header"),
        (f"{HEADER}\n{LINE} accept=x\n", "line 2: not in the one spelling"),
        (f"{HEADER}\n{LINE}  \n", "line 2: malformed"),
        (HEADER + "\n" * 30_000, "over 20000 entries"),
        ("x" * 9_000_000, "longer than"),
    ],
    ids=range(23),
)
def test_anything_else_is_an_error_that_says_where(text: str, said: str) -> None:
    with pytest.raises(BadRequestError, match=f"^lock: .*{said}") as refused:
        parse_lock(text)
    assert refused.value.field == "lock"
    assert len(refused.value.message) < 300
