"""Language servers of real sandboxes, spoken to over WebSockets as an editor does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from pandastack import Client, Sandbox
from pandastack.api.routes.lsp import LARGEST_FRAME, _Lines
from tests.support.installation import Create, Install, Server, eventually

SECONDS = 120
UNKNOWN = "00000000-0000-4000-8000-000000000000"


class Editor:
    """The client's side of the protocol: messages with their headers, cut into frames anywhere."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self._received = b""
        self._last = 0

    def ask(self, method: str, **params: Any) -> Any:
        """The result of a request; what the server says meanwhile is skipped."""
        self._last += 1
        self._send({"id": self._last, "method": method, "params": params})
        while (message := self._message()).get("id") != self._last:
            pass
        return message["result"]

    def tell(self, method: str, **params: Any) -> None:
        self._send({"method": method, "params": params})

    def _send(self, message: dict[str, Any]) -> None:
        body = json.dumps({"jsonrpc": "2.0", **message}).encode()
        data = b"Content-Length: %d\r\n\r\n" % len(body) + body
        self.socket.send(data[:20])
        self.socket.send(data[20:].decode())

    def _message(self) -> dict[str, Any]:
        while b"\r\n\r\n" not in self._received:
            self._receive()
        head, _, self._received = self._received.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].split()[0])
        while len(self._received) < length:
            self._receive()
        body, self._received = self._received[:length], self._received[length:]
        return dict(json.loads(body))

    def _receive(self) -> None:
        frame = self.socket.recv(SECONDS)
        if isinstance(frame, bytes):
            self._received += frame
        else:
            assert json.loads(frame)["stream"] == "stderr"


@contextmanager
def client_of(server: Server, sandbox: Sandbox, language: str = "python") -> Iterator[ClientConnection]:
    url = f"ws{server.url.removeprefix('http')}/v1/sandboxes/{sandbox.id}/lsp/{language}"
    headers = {"Authorization": f"Bearer {server.token}"}
    with connect(url, additional_headers=headers, subprotocols=["lsp"]) as socket:  # type: ignore[list-item]
        assert socket.subprotocol == "lsp"
        yield socket


def servers_in(sandbox: Sandbox) -> int:
    return int(sandbox.exec("pgrep -fc '[/]pylsp' || true").stdout)


def test_two_editors_complete_python_and_leave_nothing(server: Server, create: Create) -> None:
    sandbox = create("code-interpreter")
    with client_of(server, sandbox) as one, client_of(server, sandbox, "py") as other:
        editors = Editor(one), Editor(other)
        for editor, text in zip(editors, ("import json\njson.dum", "word = 'a'\nword.spl"), strict=True):
            assert editor.ask("initialize", processId=None, rootUri=None, capabilities={})["capabilities"]
            editor.tell("initialized")
            document = {"uri": "file:///workspace/a.py", "languageId": "python", "version": 1, "text": text}
            editor.tell("textDocument/didOpen", textDocument=document)
        for editor, column, wanted in zip(editors, (8, 8), ("dumps", "split"), strict=True):
            place = {"textDocument": {"uri": "file:///workspace/a.py"}, "position": {"line": 1, "character": column}}
            found = editor.ask("textDocument/completion", **place)
            assert any(item["label"].startswith(wanted) for item in found["items"])
        assert servers_in(sandbox) == 2
    eventually(lambda: servers_in(sandbox) == 0, 30, "the servers end with their clients")


def test_a_template_without_the_server_says_which_has_it(server: Server, sandbox: Sandbox) -> None:
    with client_of(server, sandbox) as socket:
        last = last_of(socket)
    assert last["error"] == "this sandbox has no pylsp"
    assert "code-interpreter" in last["hint"]


@pytest.mark.parametrize(("sandbox_id", "language", "status"), [("", "cobol", 400), (UNKNOWN, "python", 404)])
def test_refusals_answer_the_upgrade(
    server: Server, sandbox: Sandbox, sandbox_id: str, language: str, status: int
) -> None:
    url = f"ws{server.url.removeprefix('http')}/v1/sandboxes/{sandbox_id or sandbox.id}/lsp/{language}"
    with pytest.raises(InvalidStatus) as refused:
        connect(url, additional_headers={"Authorization": f"Bearer {server.token}"})
    assert refused.value.response.status_code == status


def test_languages_are_listed(http: httpx.Client) -> None:
    listed = http.get("/lsp/languages").json()
    assert listed["supported"] == ["python"]
    assert "code-interpreter" in listed["note"]


def last_of(socket: ClientConnection) -> dict[str, Any]:
    """The last frame before the server closes the connection."""
    last: str | bytes = ""
    with pytest.raises(ConnectionClosed):
        while True:
            last = socket.recv(SECONDS)
    return dict(json.loads(last))


def test_who_says_nothing_or_too_much_is_disconnected(install: Install) -> None:
    place = install("code-interpreter", PANDASTACK_LSP_IDLE_SECONDS="3")
    with (
        place.serving() as server,
        Client(api_url=server.url, api_key=server.token, timeout=120) as client,
        client.sandboxes.create("code-interpreter") as sandbox,
    ):
        with client_of(server, sandbox) as silent, client_of(server, sandbox) as loud:
            loud.send(bytes(LARGEST_FRAME + 1))
            assert str(LARGEST_FRAME) in last_of(loud)["error"]
            assert last_of(silent) == {"error": "idle timeout"}
        eventually(lambda: servers_in(sandbox) == 0, 30, "the servers end with their clients")


def test_lines_are_whole_and_never_endless() -> None:
    lines = _Lines()
    assert list(lines.feed("caf\u00e9".encode()[:-1])) == []
    assert list(lines.feed("\u00e9\nnext\nre".encode()[1:])) == ["caf\u00e9", "next"]
    assert list(lines.feed(b"x" * 100_000)) == ["re" + "x" * 100_000]
    assert list(lines.feed(b"\xff\n")) == ["\ufffd"]
