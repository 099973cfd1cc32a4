"""Which bytes a ``Range`` header means."""

from __future__ import annotations

import pytest

from pandastack.api.ranges import Span, span
from pandastack.errors import BadRequestError


@pytest.mark.parametrize(
    ("header", "size", "expected"),
    [
        ("bytes=0-0", 10, Span(0, 1, 10)),
        ("bytes=2-5", 10, Span(2, 4, 10)),
        ("bytes=2-", 10, Span(2, 8, 10)),
        ("bytes=-3", 10, Span(7, 3, 10)),
        ("bytes=-99", 10, Span(0, 10, 10)),
        ("bytes=8-99", 10, Span(8, 2, 10)),
        (" bytes= 1 - 2 ", 10, Span(1, 2, 10)),
        ("bytes=0-1,3-4", 10, None),
        ("bytes=5-2", 10, None),
        ("bytes=-", 10, None),
        ("lines=1-2", 10, None),
        ("bytes=a-b", 10, None),
        (f"bytes={'9' * 30}-", 10, None),
    ],
)
def test_one_range_or_everything(header: str, size: int, expected: Span | None) -> None:
    assert span(header, size) == expected


@pytest.mark.parametrize(("header", "size"), [("bytes=10-", 10), ("bytes=0-", 0), ("bytes=-0", 10), ("bytes=-5", 0)])
def test_bytes_that_are_not_there(header: str, size: int) -> None:
    with pytest.raises(BadRequestError) as refused:
        span(header, size)
    assert (refused.value.status_code, refused.value.detail) == (416, {"size": size})


def test_the_header_of_the_answer() -> None:
    assert Span(2, 4, 10).content_range == "bytes 2-5/10"
