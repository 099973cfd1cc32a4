"""Error responses and broken connections become this package's errors."""

from __future__ import annotations

import socket
import ssl
import traceback

import pytest

from pandastack import (
    APIConnectionError,
    AuthError,
    BadRequestError,
    Client,
    ConnectionError,
    NotFoundError,
    PandastackError,
    Sandbox,
    SandboxTimeout,
    ServerError,
)
from pandastack.config import save_config
from pandastack.errors import ConflictError, TooLargeError, to_body
from pandastack.sdk._sync.transport import _trusted
from pandastack.sdk.wire.coding import refusal_from
from tests.sdk.wire_server import RECORD, Reply, WireServer


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, BadRequestError),
        (401, AuthError),
        (403, BadRequestError),
        (404, NotFoundError),
        (409, ConflictError),
        (410, BadRequestError),
        (413, TooLargeError),
        (429, BadRequestError),
        (500, ServerError),
        (502, ServerError),
        (503, ServerError),
        (504, ServerError),
        (507, ServerError),
    ],
)
def test_status_decides_the_class(status: int, kind: type[PandastackError]) -> None:
    error = refusal_from(status, {}, b'{"error": "because"}').error
    assert isinstance(error, kind)
    assert (str(error), error.status_code) == ("because", status)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"error": "a", "message": "b"}', "a"),
        (b'{"error": "", "message": "b"}', "b"),
        (b'{"error": {"code": 1}, "detail": "c"}', "c"),
        (b"plain words\n", "plain words"),
        (b"\xff\xfe", "\ufffd\ufffd"),
        (b"[1]", "[1]"),
        (b"", "HTTP 500"),
    ],
)
def test_message_is_found_in_any_body(content: bytes, message: str) -> None:
    assert str(refusal_from(500, {}, content).error) == message


def test_a_detail_in_words_is_not_lost() -> None:
    error = refusal_from(401, {}, b'{"error": "unauthorized", "detail": "invalid api token"}').error
    assert (error.message, error.hint) == ("unauthorized", "invalid api token")


def test_hint_and_field_survive_the_wire(client: Client, wire: WireServer) -> None:
    sent = BadRequestError("ttl_seconds is negative", hint="use 0 or more", field="ttl_seconds")
    wire.will(Reply(400, to_body(sent)))
    with pytest.raises(BadRequestError) as caught:
        client.sandboxes.create(ttl_seconds=-1)
    assert (caught.value.hint, caught.value.field) == ("use 0 or more", "ttl_seconds")


def test_nothing_listens() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        client = Client(f"http://127.0.0.1:{taken.getsockname()[1]}", "k")
        with client, pytest.raises(ConnectionError, match="cannot talk to") as caught:
            client.me()
    assert isinstance(caught.value, APIConnectionError)
    assert caught.value.__cause__ is not None


def test_silence_is_a_connection_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        client = Client(f"http://127.0.0.1:{mute.getsockname()[1]}", "k", timeout=0.05)
        with client, pytest.raises(ConnectionError, match="in time"):
            client.me()


def test_an_unusable_address() -> None:
    with Client("ftp://example", "k") as client, pytest.raises(BadRequestError, match="not a usable"):
        client.me()


def test_without_a_key_nothing_is_sent(wire: WireServer) -> None:
    with Client(wire.url) as client, pytest.raises(AuthError, match="no API key"):
        client.me()
    assert wire.asked == []


def test_key_and_address_come_from_the_configuration(wire: WireServer) -> None:
    save_config(wire.url, "pds_from_file")
    wire.will(Reply(200, {"id": "me"}))
    with Client() as client:
        assert client.me() == {"id": "me"}
    (asked,) = wire.asked
    assert asked.headers["Authorization"] == "Bearer pds_from_file"
    assert asked.headers["User-Agent"].startswith("pandastack-py/")


def test_a_base_url_may_end_in_v1(wire: WireServer) -> None:
    wire.will(Reply(200, {}))
    with Client(api_base=f"{wire.url}/v1/", api_key="k") as client:
        client.me()
    assert wire.lines == ["GET /v1/me"]


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"3"])
def test_an_answer_of_another_shape_is_a_server_error(client: Client, wire: WireServer, body: bytes) -> None:
    wire.will(Reply(200, body))
    with pytest.raises(ServerError, match="did not answer with"):
        client.me()


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ("command timeout after 3s", SandboxTimeout),
        ("context deadline exceeded", SandboxTimeout),
        ("guest gone", ServerError),
    ],
)
def test_a_commands_time_limit(sandbox: Sandbox, wire: WireServer, message: str, kind: type[PandastackError]) -> None:
    wire.will(Reply(500, {"error": message}))
    with pytest.raises(kind, match=message):
        sandbox.exec("sleep 9", timeout_seconds=3)


def test_a_missing_exit_code_is_never_made_up(sandbox: Sandbox, wire: WireServer) -> None:
    wire.will(Reply(200, {"stdout": "", "stderr": ""}))
    with pytest.raises(ServerError, match="no exit code"):
        sandbox.exec("true")


def test_an_empty_id_never_reaches_the_collection(client: Client, wire: WireServer) -> None:
    with pytest.raises(BadRequestError, match="empty"):
        client.sandboxes.delete("")
    assert wire.asked == []


def test_ids_are_quoted(client: Client, wire: WireServer) -> None:
    wire.will(Reply(200, RECORD))
    client.sandboxes.get("../me?x")
    assert wire.lines == ["GET /v1/sandboxes/..%2Fme%3Fx"]


def test_a_client_without_tls_trusts_nobody() -> None:
    trusted = _trusted("http://127.0.0.1:8080")
    assert isinstance(trusted, ssl.SSLContext)
    assert (trusted.verify_mode, trusted.get_ca_certs()) == (ssl.CERT_REQUIRED, [])
    assert _trusted("HTTPS://sandboxes.example") is True


def test_a_traceback_shows_the_hint() -> None:
    error = refusal_from(507, {}, b'{"error": "no room", "hint": "delete a sandbox"}').error
    assert (str(error), error.hint) == ("no room", "delete a sandbox")
    assert "hint: delete a sandbox" in "".join(traceback.format_exception(error))
