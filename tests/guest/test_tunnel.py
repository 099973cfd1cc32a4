"""Tunnels through the real agent: both ways, both ends, and attached to again."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.abc import ByteStream, SocketAttribute

from pandastack.errors import BadRequestError, ConflictError, GuestError, NotFoundError
from pandastack.guest import Channel, Tunnel
from pandastack.guest.frames import WINDOW, encode_to_guest
from pandastack.guest.keys import FrameType, Signal
from tests.support.connections import Connections, all_of, echo, exactly, on_a_port, serving
from tests.support.guests import IDENTITY

LARGE = os.urandom(3_000_000)
AGAIN = replace(IDENTITY, continues=True)


def ipv6() -> bool:
    with suppress(OSError), socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::1", 0))
        return True
    return False


@pytest.fixture
async def path(tmp_path: Path) -> AsyncIterator[str]:
    where = str(tmp_path / "socket")
    async with serving(await anyio.create_unix_listener(where), echo):
        yield where


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[tuple[str, Connections]]:
    where, connections = str(tmp_path / "server"), Connections()
    async with serving(await anyio.create_unix_listener(where), connections.handle):
        yield where, connections


@pytest.mark.parametrize("data", [b"", b"x", b"line\n" * 100, LARGE], ids=len)
@pytest.mark.parametrize("id", [None, "named"])
@pytest.mark.parametrize("acknowledge", [True, False])
async def test_bytes_go_both_ways_and_each_way_ends_by_itself(
    channel: Channel, path: str, data: bytes, id: str | None, acknowledge: bool
) -> None:
    async with (
        channel.tunnel(path=path, id=id, acknowledge=acknowledge) as tunnel,
        anyio.create_task_group() as group,
    ):

        async def send() -> None:
            await tunnel.send(data)
            await tunnel.send_eof()

        async def tell() -> None:
            while not acknowledge and not tunnel.over:
                tunnel.acknowledge(tunnel.received)
                await anyio.sleep(0.005)

        group.start_soon(send)
        group.start_soon(tell)
        assert await all_of(tunnel) == data
        await tunnel.wait_closed()


@pytest.mark.parametrize(
    "host", ["127.0.0.1", pytest.param("::1", marks=pytest.mark.skipif(not ipv6(), reason="no IPv6"))]
)
async def test_a_port_of_the_loopback(channel: Channel, host: str) -> None:
    async with on_a_port(host, echo) as port, channel.tunnel(port=port) as tunnel:
        await tunnel.send(b"hello")
        await tunnel.send_eof()
        assert await all_of(tunnel) == b"hello"


async def test_nobody_listens(channel: Channel, tmp_path: Path) -> None:
    dead = str(tmp_path / "dead")
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(dead)
    for where in ({"path": str(tmp_path / "none")}, {"path": dead}, {"port": 1}):
        with pytest.raises(NotFoundError, match="nothing in the guest listens"):
            async with channel.tunnel(**where, id="same"):
                pass


@pytest.mark.parametrize("where", [{"path": "relative"}, {"path": "/a\0b"}, {"port": 0}, {"port": 65536}, {}])
async def test_impossible_addresses_never_reach_the_guest(channel: Channel, where: dict[str, Any]) -> None:
    for operation in (channel.tunnel, channel.listen):
        with pytest.raises(BadRequestError):
            async with operation(**where):
                pass


async def test_a_path_that_is_too_long_for_a_socket(channel: Channel) -> None:
    for operation in (channel.tunnel, channel.listen):
        with pytest.raises(BadRequestError):
            async with operation(path="/" + "x" * 200):
                pass


@pytest.mark.parametrize("id", ["", "UPPER", "x" * 37, "a/b"])
async def test_an_id_has_letters_digits_and_dashes(channel: Channel, path: str, id: str) -> None:
    with pytest.raises(BadRequestError):
        async with channel.tunnel(path=path, id=id):
            pass


async def test_the_guest_ends_its_way_first(channel: Channel, server: tuple[str, Connections]) -> None:
    where, connections = server
    async with channel.tunnel(path=where) as tunnel:
        program = await connections.next()
        await program.send(b"that is all from me")
        await program.send_eof()
        assert await all_of(tunnel) == b"that is all from me"
        await tunnel.send(b"and this ")
        await tunnel.send(b"from us")
        await tunnel.send_eof()
        assert await all_of(program) == b"and this from us"
        await tunnel.wait_closed()


async def test_leaving_early_resets_the_connection(channel: Channel) -> None:
    closed = anyio.Event()

    async def flood(stream: ByteStream) -> None:
        async with stream:
            with suppress(anyio.BrokenResourceError):
                while True:
                    await stream.send(b"x" * 65536)
            closed.set()

    async with on_a_port("127.0.0.1", flood) as port:
        async with channel.tunnel(port=port, id="flood") as tunnel:
            await tunnel.receive()
        with anyio.fail_after(10):
            await closed.wait()
        with pytest.raises(NotFoundError):
            async with channel.attach_tunnel("flood", 0):
                pass


async def test_a_program_that_resets_the_connection_is_told(channel: Channel) -> None:
    async def reset(stream: ByteStream) -> None:
        await exactly(stream, 5)
        await stream.send(b"last words")
        stream.extra(SocketAttribute.raw_socket).setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        await stream.aclose()

    async with on_a_port("127.0.0.1", reset) as port, channel.tunnel(port=port) as tunnel:
        await tunnel.send(b"hello")
        with pytest.raises(GuestError, match="reset") as caught:
            while True:
                await tunnel.receive()
        assert caught.value.detail == {"errno": errno.ECONNRESET}


async def test_a_program_that_closes_before_it_read_all_still_gives_its_answer(
    channel: Channel, server: tuple[str, Connections]
) -> None:
    where, connections = server
    async with channel.tunnel(path=where) as tunnel, anyio.create_task_group() as group:

        async def send() -> None:
            with suppress(anyio.BrokenResourceError, ConflictError):
                await tunnel.send(LARGE)
                await tunnel.send_eof()

        group.start_soon(send)
        program = await connections.next()
        await program.send(b"I will not read this")
        await program.aclose()
        assert await all_of(tunnel) == b"I will not read this"
        with pytest.raises(ConflictError):
            await tunnel.wait_closed()


async def test_a_reader_that_is_stuck_stalls_only_its_own_tunnel(
    channel: Channel, server: tuple[str, Connections], path: str
) -> None:
    """Of what the program, and later the host, does not read nothing is lost."""
    where, connections = server
    async with channel.tunnel(path=where) as stuck, anyio.create_task_group() as group:
        program = await connections.next()
        group.start_soon(stuck.send, LARGE)
        group.start_soon(program.send, LARGE)
        async with channel.tunnel(path=path) as other:
            await other.send(b"past it")
            await other.send_eof()
            assert await all_of(other) == b"past it"
        await channel.ping()
        assert await exactly(program, len(LARGE)) == LARGE
        assert await exactly(stuck, len(LARGE)) == LARGE


async def test_a_hundred_tunnels_at_once(channel: Channel) -> None:
    async def one(port: int, number: int) -> None:
        data = number.to_bytes(2, "little") * 50_000
        async with channel.tunnel(port=port, id=f"t-{number}") as tunnel, anyio.create_task_group() as group:
            group.start_soon(tunnel.send, data)
            got = b""
            while len(got) < len(data):
                got += await tunnel.receive()
            assert got == data

    async with on_a_port("127.0.0.1", echo) as port, anyio.create_task_group() as group:
        for number in range(100):
            group.start_soon(one, port, number)


class TestAttachments:
    async def test_what_was_not_acknowledged_comes_again(
        self, channel: Channel, server: tuple[str, Connections]
    ) -> None:
        where, connections = server
        async with channel.tunnel(path=where, id="mine", acknowledge=False) as tunnel:
            program = await connections.next()
            await program.send(b"0123456789")
            assert await exactly(tunnel, 10) == b"0123456789"
            tunnel.acknowledge(3, at_once=True)
            tunnel.leave()
        for received in (3, 7, 9):
            async with channel.attach_tunnel("mine", received, acknowledge=False) as tunnel:
                assert await exactly(tunnel, 10 - received) == b"0123456789"[received:]
                tunnel.leave()
        async with channel.attach_tunnel("mine", 10) as tunnel:
            await program.send(b"and on")
            assert await exactly(tunnel, 6) == b"and on"
            assert tunnel.received == 16

    async def test_what_the_program_did_not_get_is_to_be_sent_again(
        self, channel: Channel, server: tuple[str, Connections]
    ) -> None:
        where, connections = server
        async with channel.tunnel(path=where, id="mine", acknowledge=False) as tunnel:
            program = await connections.next()
            with anyio.move_on_after(1):
                await tunnel.send(LARGE)  # as much as fits on the way
            tunnel.leave()
        async with channel.attach_tunnel("mine", 0) as tunnel, anyio.create_task_group() as group:
            assert 0 < tunnel.consumed < len(LARGE)
            group.start_soon(tunnel.send, LARGE[tunnel.consumed :])
            assert await exactly(program, len(LARGE)) == LARGE

    @pytest.mark.parametrize("received", [2, 11, 2**40])
    async def test_offsets_that_the_guest_does_not_have_are_refused(
        self, channel: Channel, server: tuple[str, Connections], received: int
    ) -> None:
        where, connections = server
        async with channel.tunnel(path=where, id="mine", acknowledge=False) as tunnel:
            await (await connections.next()).send(b"0123456789")
            await exactly(tunnel, 10)
            tunnel.acknowledge(3, at_once=True)
            tunnel.leave()
        with pytest.raises(ConflictError):
            async with channel.attach_tunnel("mine", received, acknowledge=False):
                pass
        async with channel.attach_tunnel("mine", 3) as tunnel:
            assert await exactly(tunnel, 7) == b"3456789"

    async def test_the_last_to_attach_wins(self, channel: Channel, path: str) -> None:
        async with channel.tunnel(path=path, id="mine") as first, channel.attach_tunnel("mine", 0) as second:
            with pytest.raises(GuestError, match="another stream"):
                await first.receive()
            await second.send(b"x")
            assert await second.receive() == b"x"

    async def test_an_id_is_taken_once(self, channel: Channel, path: str) -> None:
        async with channel.tunnel(path=path, id="mine"):
            with pytest.raises(ConflictError):
                async with channel.tunnel(path=path, id="mine"):
                    pass

    async def test_an_unknown_id_is_said_so(self, channel: Channel) -> None:
        with pytest.raises(NotFoundError, match="tunnel never is not open"):
            async with channel.attach_tunnel("never", 0):
                pass

    async def test_ends_are_kept_like_bytes(self, channel: Channel, server: tuple[str, Connections]) -> None:
        """Both ways have ended, and the host's end lost the end of the guest's: it comes again, as does the outcome."""
        where, connections = server
        async with channel.tunnel(path=where, id="mine", acknowledge=False) as tunnel:
            program = await connections.next()
            await program.send(b"bye")
            await program.send_eof()
            await tunnel.send_eof()
            assert await all_of(tunnel) == b"bye"
            assert await all_of(program) == b""
            tunnel.leave()
        async with channel.attach_tunnel("mine", 1) as tunnel:
            assert tunnel.consumed == 1
            assert await all_of(tunnel) == b"ye"
            assert tunnel.received == 4
            tunnel.acknowledge(4, at_once=True)
            await tunnel.wait_closed()
        async with channel.attach_tunnel("mine", 4) as tunnel:  # the outcome itself was lost
            await tunnel.wait_closed()

    async def test_a_connection_that_broke_meanwhile_gives_its_last_bytes_first(self, channel: Channel) -> None:
        connections = Connections()
        async with on_a_port("127.0.0.1", connections.handle) as port:
            async with channel.tunnel(port=port, id="mine", acknowledge=False) as tunnel:
                program = await connections.next()
                await program.send(b"last words")
                await exactly(tunnel, 10)
                tunnel.leave()
            linger = b"\1\0\0\0\0\0\0\0"
            program.extra(SocketAttribute.raw_socket).setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            await program.aclose()
            async with channel.attach_tunnel("mine", 4) as tunnel:
                assert await exactly(tunnel, 6) == b" words"
                with pytest.raises(GuestError, match="reset"):
                    await tunnel.receive()

    @pytest.mark.parametrize("missing", [1, 2, 500, 1000, 1001, 1003, 1006])
    @pytest.mark.parametrize("kind", [FrameType.DATA, FrameType.EOF, FrameType.SIGNAL, FrameType.CREDIT], ids=str)
    async def test_a_frame_that_was_cut_is_not_acted_on(
        self, channel: Channel, server: tuple[str, Connections], kind: FrameType, missing: int
    ) -> None:
        """A server was killed while it sent it. The next one completes it with zeros, which nobody's program gets."""
        where, connections = server
        payload = b"" if kind is FrameType.EOF else bytes([Signal.CANCEL]) if kind is FrameType.SIGNAL else b"d" * 1000
        async with channel.tunnel(path=where, id="mine") as tunnel:
            program = await connections.next()
            await tunnel.send(b"before,")
            assert await exactly(program, 7) == b"before,"
            whole = encode_to_guest(kind, 1, payload)
            channel.post(whole[: max(len(whole) - missing, 1)])
            await channel.resume(AGAIN, at_frame_boundary=False, timeout_s=10)
            async with channel.attach_tunnel("mine", 0) as again:
                assert again.consumed == 7
                await again.send(b"after")
                await again.send_eof()
                assert await all_of(program) == b"after"

    async def test_a_machine_that_continues_keeps_its_tunnels(self, channel: Channel, path: str) -> None:
        """A wake, or the adoption by the next server: the channel itself begins anew."""
        async with channel.tunnel(path=path, id="mine") as tunnel:
            await tunnel.send(b"before")
            await channel.resume(AGAIN, at_frame_boundary=True, timeout_s=10)
            with pytest.raises(GuestError, match="resumed"):
                await exactly(tunnel, 100)
        async with channel.attach_tunnel("mine", 0) as tunnel:
            await tunnel.send(b"before after"[tunnel.consumed :])
            assert await exactly(tunnel, 12) == b"before after"

    async def test_in_a_copy_every_connection_is_reset(self, channel: Channel) -> None:
        connections = Connections()
        async with (
            on_a_port("127.0.0.1", connections.handle) as port,
            channel.tunnel(port=port, id="mine", acknowledge=False),
        ):
            program = await connections.next()
            await channel.resume(IDENTITY, at_frame_boundary=True, timeout_s=10)
            with pytest.raises(anyio.BrokenResourceError), anyio.fail_after(10):
                await program.receive()
            with pytest.raises(NotFoundError):
                async with channel.attach_tunnel("mine", 0):
                    pass

    async def test_programs_wait_while_nobody_is_attached(
        self, channel: Channel, server: tuple[str, Connections]
    ) -> None:
        where, connections = server
        async with channel.tunnel(path=where, id="mine", acknowledge=False) as tunnel:
            program = await connections.next()
            tunnel.leave()
        async with anyio.create_task_group() as group:
            group.start_soon(program.send, LARGE)
            await anyio.wait_all_tasks_blocked()
            async with channel.attach_tunnel("mine", 0) as tunnel:
                assert await exactly(tunnel, len(LARGE)) == LARGE

    async def test_the_guest_sends_no_more_than_a_window_beyond_what_was_acknowledged(
        self, channel: Channel, server: tuple[str, Connections]
    ) -> None:
        where, connections = server
        async with (
            channel.tunnel(path=where, id="mine", acknowledge=False) as tunnel,
            anyio.create_task_group() as group,
        ):
            group.start_soon((await connections.next()).send, LARGE)
            with anyio.move_on_after(1):
                await exactly(tunnel, len(LARGE))
            assert tunnel.received <= WINDOW
            group.cancel_scope.cancel()


@asynccontextmanager
async def dialled(where: dict[str, Any]) -> AsyncIterator[ByteStream]:
    if "path" in where:
        async with await anyio.connect_unix(where["path"]) as stream:
            yield stream
    else:
        async with await anyio.connect_tcp(where.get("host", "127.0.0.1"), where["port"]) as stream:
            yield stream


class TestListening:
    @pytest.mark.parametrize("kind", ["port", "path"])
    async def test_each_connection_is_a_tunnel(
        self, channel: Channel, tmp_path: Path, kind: str, free_port: Callable[[], int]
    ) -> None:
        where: dict[str, Any] = {"port": free_port()} if kind == "port" else {"path": str(tmp_path / "door")}
        async with channel.listen(**where) as listener, dialled(where) as program, dialled(where) as second:
            ids = listener.accepted()
            async with accept(channel, await anext(ids)) as tunnel, accept(channel, await anext(ids)) as other:
                await program.send(b"request")
                assert await exactly(tunnel, 7) == b"request"
                await tunnel.send(b"answer")
                assert await exactly(program, 6) == b"answer"
                await second.send_eof()
                assert await all_of(other) == b""
        await channel.ping()
        with pytest.raises(OSError):
            async with dialled(where):
                pass

    @pytest.mark.skipif(not ipv6(), reason="no IPv6")
    async def test_a_port_is_there_for_both_families(self, channel: Channel, free_port: Callable[[], int]) -> None:
        where = {"port": free_port()}
        async with channel.listen(**where) as listener, dialled({**where, "host": "::1"}) as program:
            await program.send(b"six")
            async with accept(channel, await anext(listener.accepted())) as tunnel:
                assert await exactly(tunnel, 3) == b"six"

    async def test_an_address_that_is_taken(self, channel: Channel, path: str) -> None:
        async with on_a_port("127.0.0.1", echo) as port:
            for where in ({"port": port}, {"path": path}):
                with pytest.raises(ConflictError):
                    async with channel.listen(**where):
                        pass
        assert Path(path).exists()

    async def test_every_user_of_the_guest_may_connect_unless_told_otherwise(
        self, channel: Channel, tmp_path: Path
    ) -> None:
        for mode, expected in ((None, 0o666), (0o600, 0o600)):
            async with channel.listen(path=str(tmp_path / "door"), mode=mode):
                assert (tmp_path / "door").stat().st_mode & 0o777 == expected
            await channel.ping()
            assert not (tmp_path / "door").exists()

    async def test_connections_wait_while_nobody_is_attached(
        self, channel: Channel, free_port: Callable[[], int]
    ) -> None:
        where = {"port": free_port()}
        async with channel.listen(**where, id="door") as listener, dialled(where) as first:
            announced = await anext(listener.accepted())
            listener.leave()
            async with dialled(where) as second:
                await second.send(b"second")
                await channel.resume(AGAIN, at_frame_boundary=True, timeout_s=10)
                async with channel.listen(**where, id="door") as again:
                    ids = again.accepted()
                    assert await anext(ids) == announced  # nobody attached to it
                    async with accept(channel, announced) as tunnel:
                        await tunnel.send(b"first")
                        assert await exactly(first, 5) == b"first"
                    async with accept(channel, await anext(ids)) as tunnel:
                        assert await exactly(tunnel, 6) == b"second"

    async def test_a_copy_listens_at_nothing(self, channel: Channel, tmp_path: Path) -> None:
        where = {"path": str(tmp_path / "door")}
        async with channel.listen(**where, id="door"):
            await channel.resume(IDENTITY, at_frame_boundary=True, timeout_s=10)
        assert not (tmp_path / "door").exists()
        async with channel.listen(**where, id="door"):
            pass


def accept(channel: Channel, id: str) -> AbstractAsyncContextManager[Tunnel]:
    return channel.attach_tunnel(id, 0)
