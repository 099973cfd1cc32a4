"""The broker's process: takes the engine's orders, and the egress process's connections."""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import resource
import socket
import sys
from collections.abc import Sequence
from typing import Any

import anyio
import cryptography.hazmat.backends.openssl.backend  # noqa: F401  # loaded before the user is changed
from anyio.abc import UNIXSocketStream
from anyio.streams.buffered import BufferedByteReceiveStream

from pandastack.broker import messages
from pandastack.broker.authority import Authority, CaFiles
from pandastack.broker.server import Broker
from pandastack.broker.streams import trusting
from pandastack.host.processes.limits import raise_descriptor_limit

_PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 4, 38


def main(argv: Sequence[str] | None = None) -> None:
    """Run until the engine's end of the orders is closed."""
    parser = argparse.ArgumentParser(prog="python -m pandastack.broker")
    parser.add_argument("--orders", type=int, required=True, help="descriptor of the engine's orders")
    parser.add_argument("--listener", type=int, required=True, help="descriptor of the socket of handovers")
    parser.add_argument("--uid", type=int, help="the user to run as")
    parser.add_argument("--callers", type=int, nargs="*", default=[], help="users who may hand over")
    parser.add_argument("--trust", help="file of the authorities that vouch for hosts")
    given = parser.parse_args(argv)
    hosts = trusting(given.trust)
    raise_descriptor_limit()
    anyio.run(anyio.sleep, 0)  # loads what the event loop imports late
    confine(given.uid)
    anyio.run(_serve, given.orders, given.listener, frozenset(given.callers), hosts)


def confine(uid: int | None) -> None:
    """Become ``uid`` (None: stay), and leave no way for values into a core file or another process."""
    libc = ctypes.CDLL(None, use_errno=True)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if uid is not None:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    os.chdir("/")
    os.umask(0o077)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


async def _serve(orders_fd: int, listener_fd: int, callers: frozenset[int], hosts: Any) -> None:
    orders = await UNIXSocketStream.from_socket(socket.socket(fileno=orders_fd))
    listener = socket.socket(fileno=listener_fd)
    listener.setblocking(False)
    lock = anyio.Lock()

    async def send(data: bytes) -> None:
        async with lock:
            await orders.send(data)

    reader = BufferedByteReceiveStream(orders)
    first = await _next(reader)
    if first is None:
        return
    authority = Authority(CaFiles(first["certificate"], first["key"]))
    broker = Broker(authority, hosts, callers, send)
    await send(messages.line({"done": first["id"]}))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_take_all, listener, broker)
        while (order := await _next(reader)) is not None:
            _obey(broker, order)
            await send(messages.line({"done": order["id"]}))
        tasks.cancel_scope.cancel()


async def _take_all(listener: socket.socket, broker: Broker) -> None:
    async with anyio.create_task_group() as tasks:
        while True:
            await anyio.wait_readable(listener)
            try:
                connection, _ = listener.accept()
            except OSError:
                await anyio.sleep(0.05)  # the caller is gone already, or there are too many open files
                continue
            connection.setblocking(False)
            tasks.start_soon(broker.take, await UNIXSocketStream.from_socket(connection))


async def _next(reader: BufferedByteReceiveStream) -> dict[str, Any] | None:
    """The next order; None when the engine has gone."""
    try:
        order: dict[str, Any] = json.loads(await reader.receive_until(b"\n", messages.ORDER_LIMIT))
    except (anyio.EndOfStream, anyio.IncompleteRead, anyio.BrokenResourceError):
        return None
    return order


def _obey(broker: Broker, order: dict[str, Any]) -> None:
    match order["do"]:
        case "bind":
            broker.bind(order["slot"], messages.decode_bindings(order["bindings"]))
        case "unbind":
            broker.unbind(order["slot"])
        case unknown:
            sys.exit(f"unknown order {unknown!r}")
