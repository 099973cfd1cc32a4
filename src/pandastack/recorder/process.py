"""The recording proxy's process: one build's. It ends with the control plane's end of the orders."""

from __future__ import annotations

import argparse
import array
import concurrent.futures.thread  # noqa: F401  # what is imported late is loaded before the user is changed
import ctypes
import datetime
import encodings.idna  # noqa: F401
import os
import resource
import socket
import ssl
from collections.abc import Sequence

import anyio
import cryptography.hazmat.backends.openssl.backend  # noqa: F401
import structlog
from anyio.abc import TaskGroup, UNIXSocketStream
from anyio.streams.buffered import BufferedByteReceiveStream

from pandastack.broker.authority import Authority, Period, make_ca
from pandastack.broker.streams import trusting
from pandastack.contract.codec import decode_request, encode
from pandastack.host.processes.limits import raise_descriptor_limit
from pandastack.host.processes.privileges import drop_privileges
from pandastack.recorder.answers import Budget
from pandastack.recorder.lock import Lock, parse_lock
from pandastack.recorder.messages import LINE_LIMIT, Mode, Ready, Refusal, Report, Start
from pandastack.recorder.outside import Outside
from pandastack.recorder.pair import PairStream
from pandastack.recorder.proxy import Proxy, Source
from pandastack.recorder.sources import Recording, Refusals, Replay, Spool, refetch

_NEW_NETWORK = 0x40000000  # CLONE_NEWNET
_ALWAYS = Period(datetime.datetime(1979, 1, 1, tzinfo=datetime.UTC), datetime.datetime(2110, 1, 1, tzinfo=datetime.UTC))
"""A guest's clock is at SOURCE_DATE_EPOCH."""

log = structlog.get_logger(__name__)


def main(argv: Sequence[str] | None = None) -> None:
    """Run until the control plane's end of the orders is closed."""
    parser = argparse.ArgumentParser(prog="python -m pandastack.recorder")
    parser.add_argument("--orders", type=int, required=True, help="descriptor of the orders")
    parser.add_argument("--connections", type=int, required=True, help="descriptor that brings connections")
    parser.add_argument("--directory", type=int, required=True, help="descriptor of the directory of bodies")
    parser.add_argument("--uid", type=int, help="the user to run as")
    parser.add_argument("--no-network", action="store_true", help="leave the host's network, which needs root")
    given = parser.parse_args(argv)
    hosts = trusting(None)
    raise_descriptor_limit()
    anyio.run(anyio.sleep, 0)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if given.no_network and ctypes.CDLL(None, use_errno=True).unshare(_NEW_NETWORK) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    drop_privileges(given.uid, die_with_parent=True)
    os.chdir("/")
    os.umask(0o022)
    anyio.run(_serve, given.orders, given.connections, given.directory, hosts)


async def _serve(orders_fd: int, connections_fd: int, directory: int, hosts: ssl.SSLContext) -> None:
    orders = await UNIXSocketStream.from_socket(socket.socket(fileno=orders_fd))
    reader = BufferedByteReceiveStream(orders)
    try:
        start = decode_request(Start, await reader.receive_until(b"\n", LINE_LIMIT))
        async with anyio.create_task_group() as tasks:
            report = await _report(start, orders, reader, connections_fd, directory, hosts, tasks)
            tasks.cancel_scope.cancel()
        await orders.send(encode(report) + b"\n")
    except (anyio.EndOfStream, anyio.IncompleteRead, anyio.BrokenResourceError):
        pass  # the control plane has gone


async def _report(
    start: Start,
    orders: UNIXSocketStream,
    reader: BufferedByteReceiveStream,
    connections_fd: int,
    directory: int,
    hosts: ssl.SSLContext,
    tasks: TaskGroup,
) -> Report:
    refusals, outside, budget = Refusals(), Outside(hosts, start.networks), Budget(start.most_bytes)
    if start.mode is Mode.REFETCH:
        lock = await refetch(parse_lock(start.lock), outside, Spool(directory), budget, refusals)
        return _reported(lock, refusals)
    source: Source = (
        Recording(outside, Spool(directory), budget, tasks)
        if start.mode is Mode.RECORD
        else Replay(parse_lock(start.lock), directory)
    )
    authority = make_ca("PandaStack recording proxy", _ALWAYS)
    proxy = Proxy(Authority(authority, _ALWAYS), source, refusals)
    tasks.start_soon(_take_all, connections_fd, proxy, tasks)
    await orders.send(encode(Ready(authority.certificate)) + b"\n")
    await reader.receive_until(b"\n", LINE_LIMIT)
    return _reported(await source.lock(), refusals)


def _reported(lock: Lock, refusals: Refusals) -> Report:
    found = [Refusal(method, url, reason) for (method, url), reason in refusals.listed.items()]
    return Report(lock.text, tuple(found))


async def _take_all(fd: int, proxy: Proxy, tasks: TaskGroup) -> None:
    connections = socket.socket(fileno=fd)
    connections.setblocking(False)
    size = array.array("i").itemsize
    while True:
        await anyio.wait_readable(connections)
        data, ancillary, _, _ = connections.recvmsg(1, socket.CMSG_SPACE(size))
        if not data:
            return
        for _, _, descriptors in ancillary:
            tasks.start_soon(_serve_one, int.from_bytes(descriptors[:size], "little"), proxy)


async def _serve_one(fd: int, proxy: Proxy) -> None:
    stream = PairStream(socket.socket(fileno=fd))
    try:
        await proxy.serve(stream)
        await stream.send_eof()
    except Exception as error:  # one connection must not end the others
        log.error("recorder.connection_failed", exc_info=error)
    finally:
        await stream.aclose()
