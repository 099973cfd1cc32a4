"""What a database server in a guest says to its operator, and the programs beside it."""

from __future__ import annotations

import re
import struct
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import anyio
from starlette.websockets import WebSocket

from pandastack.contract.codec import encode
from pandastack.contract.processes import ExecSpec
from pandastack.contract.records import STDOUT, Output, Record
from pandastack.contract.tunnels import Closed, Consumed, Ended
from pandastack.products.databases.server import SOCKET
from tests.cluster.scripted_engine import TEMPLATE, ScriptedEngine, result

NUMBERS = ("16.14", "7000000", "3", "100", "60", "0.9900", "1", "0", "0/3000060", "2", "0", "0")
WORK = ("0", "0", "0")
DISK = "Filesystem 1024-blocks Used Available Capacity Mounted on\n/dev/vdb 1000 250 750 25% /var/lib/postgresql\n"
_PASSWORD = re.compile(r"ALTER ROLE pandastack LOGIN PASSWORD '(SCRAM-SHA-256\$[^']*)'")


class ScriptedPostgres:
    """Installs itself in an engine: its templates, guests' sockets and commands."""

    def __init__(self, engine: ScriptedEngine) -> None:
        self.engine = engine
        self.passwords: dict[str, str] = {}
        """The verifier that each sandbox has; a fork has that of its parent, which nobody asks for."""
        self.asked: list[tuple[str, str]] = []
        """What was asked of which sandbox: a word for each statement."""
        self.startup: list[dict[str, str]] = []
        self.answers: list[bytes] = []
        """Sent in place of answers to the next startups, byte by byte as they are."""
        self.takes_passwords = True
        self.numbers: tuple[str | None, ...] = NUMBERS
        self.work: tuple[str | None, ...] = WORK
        self.disk = DISK
        self.commands: list[str] = []
        self.directory: Path | None = None
        """Of the socket of a real server, for sessions of tenants."""
        for name in ("postgres", "postgres-4g"):
            engine.templates["", name] = replace(TEMPLATE, name=name)
        engine.logs["service-postgres"] = b"".join(b"LOG:  line %d\n" % number for number in range(30))
        engine.sockets[SOCKET] = self._serve
        engine.exec_records = self._run

    async def _serve(self, sandbox: str, socket: WebSocket) -> None:
        with suppress(_Left):
            await self._converse(sandbox, socket)

    async def _converse(self, sandbox: str, socket: WebSocket) -> None:
        data = await _receive(socket, b"", 4)
        (length,) = struct.unpack("!I", data[:4])
        data = await _receive(socket, data, length)
        fields = data[8:length].decode().split("\0")
        self.startup.append(dict(zip(fields[::2], fields[1::2], strict=False)))
        if self.directory is not None and self.startup[-1]["user"] != "postgres" and not self.answers:
            await _relay(self.directory, data, socket)
            return
        data = data[length:]
        if self.answers:
            await socket.send_bytes(self.answers.pop(0))
            await _close(socket)
            return
        await socket.send_bytes(message(b"R", b"\0\0\0\0") + message(b"S", b"a\0b\0") + message(b"Z", b"I"))
        while True:
            data = await _receive(socket, data, 5)
            (length,) = struct.unpack("!I", data[1:5])
            data = await _receive(socket, data, length + 1)
            sql, data = data[5:length].decode(), data[length + 1 :]
            await socket.send_bytes(self._answer(sandbox, sql) + message(b"Z", b"I"))

    def _answer(self, sandbox: str, sql: str) -> bytes:
        return b"".join(self._statement(sandbox, each) for each in sql.split("; "))

    def _statement(self, sandbox: str, sql: str) -> bytes:
        word = next(
            each for each in ("ALTER", "terminate", "rolpassword", "server_version", "autovacuum") if each in sql
        )
        self.asked.append((sandbox, word))
        if given := _PASSWORD.fullmatch(sql):
            self.passwords[sandbox] = given[1]
            return message(b"C", b"ALTER ROLE\0")
        rows = {
            "terminate": [],
            "rolpassword": [(self.passwords.get(sandbox) if self.takes_passwords else None,)],
            "server_version": [self.numbers],
            "autovacuum": [self.work],
        }[word]
        return b"".join(row(each) for each in rows) + message(b"C", b"SELECT 1\0")

    async def _run(self, spec: ExecSpec) -> AsyncIterator[Record | bytes]:
        self.commands.append(spec.cmd)
        yield Output(STDOUT, self.disk.encode())
        yield result()


def message(kind: bytes, body: bytes) -> bytes:
    """A message of the server."""
    return kind + struct.pack("!I", len(body) + 4) + body


def row(values: tuple[str | None, ...]) -> bytes:
    """A row."""
    body = struct.pack("!H", len(values))
    for each in values:
        text = b"" if each is None else each.encode()
        body += struct.pack("!i", -1 if each is None else len(text)) + text
    return message(b"D", body)


def refusal(code: str) -> bytes:
    """An error."""
    return message(b"E", b"SFATAL\0C" + code.encode() + b"\0Mno\0\0")


async def _receive(socket: WebSocket, data: bytes, count: int) -> bytes:
    while len(data) < count:
        given = await socket.receive()
        if given["type"] == "websocket.disconnect":
            raise _Left
        if "close" in (given.get("text") or ""):  # what else is said of a tunnel does not matter here
            await _close(socket)
            raise _Left
        data += given.get("bytes") or b""
    return data


async def _relay(directory: Path, data: bytes, socket: WebSocket) -> None:
    """Pass bytes on to a real server and back, until one of both leaves."""
    async with await anyio.connect_unix(str(directory / ".s.PGSQL.5432")) as server, anyio.create_task_group() as tasks:

        async def answer() -> None:
            with suppress(anyio.EndOfStream, anyio.BrokenResourceError):
                while True:
                    await socket.send_bytes(await server.receive())
            await _close(socket)
            tasks.cancel_scope.cancel()

        tasks.start_soon(answer)
        with suppress(_Left, anyio.BrokenResourceError):
            taken = 0
            while True:
                await server.send(data)
                taken += len(data)
                await socket.send_text(encode(Consumed(taken)).decode())
                data = await _receive(socket, b"", 1)
        tasks.cancel_scope.cancel()


class _Left(Exception):
    """The control plane has closed the connection."""


async def _close(socket: WebSocket) -> None:
    for last in (Ended(), Closed()):
        await socket.send_text(encode(last).decode())
    await socket.close()
