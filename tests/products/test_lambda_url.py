"""Events and answers in the format of Lambda's function URLs."""

from __future__ import annotations

from typing import Any

import pytest

from pandastack.products.functions.lambda_url import HttpRequest, Malformed, answer_of, event_of, printed


def event(body: bytes = b"", query: str = "", **headers: str) -> dict[str, Any]:
    given = [(name.replace("_", "-"), text) for name, text in headers.items()]
    return event_of(HttpRequest("POST", "/a", query, given, body, "192.0.2.1"), "r", 0.0)


def test_an_event() -> None:
    made = event_of(
        HttpRequest("GET", "/a%20b", "x=1&x=2&y=", [("a", "1"), ("a", "2"), ("cookie", "c=1; d=2")], b"", "192.0.2.1"),
        "r",
        1.5,
    )
    assert (made["version"], made["routeKey"], made["rawPath"]) == ("2.0", "$default", "/a%20b")
    assert (made["headers"], made["cookies"]) == ({"a": "1,2"}, ["c=1", "d=2"])
    assert made["queryStringParameters"] == {"x": "1,2", "y": ""}
    http = made["requestContext"]["http"]
    assert (http["method"], http["path"], http["sourceIp"]) == ("GET", "/a%20b", "192.0.2.1")
    assert made["requestContext"]["timeEpoch"] == 1500 and "body" not in made
    assert "queryStringParameters" not in event() and "cookies" not in event()


def test_bodies() -> None:
    assert event("ä".encode(), content_type="text/plain")["body"] == "ä"
    assert event(b"{}", content_type="application/problem+json")["isBase64Encoded"] is False
    for body, kind in ((b"\xff", "text/plain"), (b"x", "image/png")):
        made = event(body, content_type=kind)
        assert made["isBase64Encoded"] is True


def test_answers() -> None:
    for value in ({"a": 1}, [1], "text", None, 3):
        made = answer_of(value)
        assert (made.status, made.headers) == (200, (("content-type", "application/json"),))
    assert answer_of({"statusCode": 204}).body == b""
    made = answer_of({"statusCode": 200, "body": "eA==", "isBase64Encoded": True, "headers": [["A", "1"], ["A", "2"]]})
    assert (made.body, made.headers[:2]) == (b"x", (("A", "1"), ("A", "2")))
    assert answer_of({"statusCode": 200, "body": {"a": 1}}).body == b'{"a":1}'
    assert printed("hello").headers[0][1].startswith("text/plain") and printed("[1]").headers[0][1].endswith("json")


@pytest.mark.parametrize(
    "result",
    [
        {"statusCode": 99},
        {"statusCode": "200"},
        {"statusCode": True},
        {"statusCode": 200, "headers": {"a\r\nb": "c"}},
        {"statusCode": 200, "headers": {"a": "b\r\nc: d"}},
        {"statusCode": 200, "headers": 3},
        {"statusCode": 200, "body": "*", "isBase64Encoded": True},
        {"statusCode": 200, "headers": {f"a{n}": "b" for n in range(101)}},
    ],
)
def test_answers_that_are_none(result: Any) -> None:
    with pytest.raises(Malformed):
        answer_of(result)
