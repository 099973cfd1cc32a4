"""Values go where placeholders were: in headers, query and JSON, for bound hosts only."""

from __future__ import annotations

import base64
import json

import pytest

from pandastack.broker.bindings import Binding
from pandastack.broker.swap import Refused, Swapper
from pandastack.model.secrets import is_placeholder, new_placeholder

KEY, OTHER = new_placeholder(), new_placeholder()
VALUE = 'p"ä ss&word'
BINDINGS = [
    Binding("KEY", KEY, VALUE, ("api.example.org", "*.example.net")),
    Binding("OTHER", OTHER, "another-value", ("other.example.org",)),
]


def swapper(host: str = "api.example.org", *, plain: bool = False) -> Swapper:
    return Swapper(BINDINGS, host, plain=plain)


def test_placeholders_are_recognised() -> None:
    assert is_placeholder(KEY) and KEY != OTHER
    assert not is_placeholder(KEY + "0") and not is_placeholder("x")


def test_headers_get_the_value() -> None:
    head = swapper().head(b"/x", [(b"authorization", f"Bearer {KEY}".encode()), (b"x-other", b"1")])
    assert head.headers == [(b"authorization", b"Bearer " + VALUE.encode()), (b"x-other", b"1")]
    assert head.used == ("KEY",)


def test_a_basic_credential_is_decoded_and_encoded_again() -> None:
    given = b"Basic " + base64.b64encode(f"user:{KEY}".encode())
    head = swapper().head(b"/", [(b"authorization", given)])
    encoded = head.headers[0][1].removeprefix(b"Basic ")
    assert base64.b64decode(encoded) == b"user:" + VALUE.encode()
    assert head.echoes == (encoded,)


@pytest.mark.parametrize("credential", ["!", "YQ", "====", "ä"])
def test_other_credentials_stay_as_they_are(credential: str) -> None:
    given = [(b"authorization", f"Basic {credential}".encode())]
    assert swapper().head(b"/", given).headers == given


def test_the_query_gets_the_value_with_its_own_spelling() -> None:
    assert swapper().head(f"/a?k={KEY}&b=%20".encode(), []).target == b"/a?k=p%22%C3%A4%20ss%26word&b=%20"


def test_json_gets_the_value_as_a_string() -> None:
    body, used = swapper().json(json.dumps({"a": f"x{KEY}y", "b": [KEY]}).encode())
    assert json.loads(body) == {"a": f"x{VALUE}y", "b": [VALUE]}
    assert used == ("KEY",)


def test_a_body_without_placeholder_is_not_changed() -> None:
    assert swapper().json(b'{"a" : 1 }') == (b'{"a" : 1 }', ())


@pytest.mark.parametrize(
    ("target", "headers", "where"),
    [(f"/{KEY}/x", [], "path"), ("/", [(KEY, "1")], "name of a header")],
    ids=["path", "name"],
)
def test_other_places_are_refused(target: str, headers: list[tuple[str, str]], where: str) -> None:
    with pytest.raises(Refused) as refused:
        swapper().head(target.encode(), [(name.encode(), value.encode()) for name, value in headers])
    assert (refused.value.name, refused.value.where) == ("KEY", where)


@pytest.mark.parametrize(
    "host", ["other.example.org", "example.net", "api.example.org.evil.test", "xexample.net", "evil-api.example.org"]
)
def test_other_hosts_do_not_get_it(host: str) -> None:
    with pytest.raises(Refused, match=f"KEY is not bound to {host}"):
        swapper(host).head(b"/", [(b"x", KEY.encode())])
    assert VALUE not in swapper(host).values


@pytest.mark.parametrize("host", ["api.example.org", "a.example.net", "a.b.example.net"])
def test_bound_hosts_get_it(host: str) -> None:
    assert swapper(host).head(b"/", [(b"x", KEY.encode())]).used == ("KEY",)


def test_a_placeholder_of_no_secret_is_refused() -> None:
    with pytest.raises(Refused, match="no secret of this sandbox"):
        swapper().head(b"/", [(b"x", new_placeholder().encode())])


def test_no_value_goes_over_an_unencrypted_connection() -> None:
    with pytest.raises(Refused, match="unencrypted"):
        swapper(plain=True).head(b"/", [(b"x", KEY.encode())])
