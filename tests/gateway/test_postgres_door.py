"""The PostgreSQL door byte by byte: what clients do that no library does, and servers as no database should have."""

from __future__ import annotations

import asyncio
import ssl
import struct

import anyio
import pytest

from pandastack.errors import AsleepError, UnavailableError
from pandastack.gateway.postgres import door as door_module
from pandastack.gateway.postgres import service
from pandastack.gateway.postgres.messages import (
    CANCEL_REQUEST,
    SASL,
    SSL_REQUEST,
    authentication,
    cancel_packet,
    key_data,
    message,
)
from tests.gateway.postgres_clients import (
    DATABASE,
    HOST,
    USER,
    Raw,
    ask_gss,
    plain,
    request,
    scripted,
    secure,
    startup,
)
from tests.gateway.world import World

pytestmark = pytest.mark.anyio

READY = message(b"Z", b"I")
LOGGED_IN = authentication(0) + message(b"S", b"server_version\x0016\0")


def refused(code: str, text: str = "no") -> bytes:
    return message(b"E", f"SFATAL\0C{code}\0M{text}\0\0".encode())


async def test_gssapi_then_tls_each_once(lone_door: World) -> None:
    async with plain(lone_door) as raw:
        assert await ask_gss(raw) == b"N"
        raw.send(request(SSL_REQUEST))
        assert await raw.reader.readexactly(1) == b"S"
        await raw.start_tls()
        raw.send(request(SSL_REQUEST))  # inside TLS there is no other
        assert (await raw.error())["C"] == "08P01"
    async with plain(lone_door) as raw:
        assert await ask_gss(raw) == b"N"
        raw.send(request(80877104))
        assert await raw.ended()


@pytest.mark.parametrize("code", [SSL_REQUEST, 80877104])
async def test_what_is_sent_before_the_answer_is_not_taken_as_said_inside_tls(lone_door: World, code: int) -> None:
    async with plain(lone_door) as raw:
        raw.send(request(code) + startup())
        assert await raw.ended()


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        struct.pack("!II", 7, SSL_REQUEST),
        struct.pack("!II", 10_001, 3 << 16),
        struct.pack("!III", 12, SSL_REQUEST, 0),
        request(CANCEL_REQUEST, b"abcd"),
        request(CANCEL_REQUEST, b"x" * 300),
        b"\x16\x03\x01\x00\x05hello",
    ],
)
async def test_malformed_first_packets(lone_door: World, sent: bytes) -> None:
    async with plain(lone_door) as raw:
        raw.send(sent)
        assert await raw.ended()


async def test_a_plain_session_is_refused(lone_door: World) -> None:
    async with plain(lone_door) as raw:
        raw.send(startup())
        assert "TLS" in (await raw.error())["M"]


@pytest.mark.parametrize(
    ("protocols", "direct", "accepted"),
    [
        ((), False, True),
        (("postgresql",), False, True),
        (("h2", "postgresql"), False, True),
        (("h2",), False, False),
        ((), True, False),
        (("postgresql",), True, True),
        (("http/1.1",), True, False),
    ],
)
async def test_the_protocol_inside_tls(
    lone_door: World, protocols: tuple[str, ...], direct: bool, accepted: bool
) -> None:
    async with plain(lone_door) as raw:
        if not direct:
            raw.send(request(SSL_REQUEST))
            assert await raw.reader.readexactly(1) == b"S"
        if accepted:
            await raw.start_tls(protocols=protocols)
            raw.send(startup())
            assert await raw.message() == (b"R", SASL.to_bytes(4) + b"SCRAM-SHA-256\0\0")
            selected = raw.writer.get_extra_info("ssl_object").selected_alpn_protocol()
            assert selected == ("postgresql" if protocols else None)
        else:
            with pytest.raises(ssl.SSLError, match="no application protocol"):
                await raw.start_tls(protocols=protocols)


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (struct.pack("!II", 10_001, 3 << 16), "08P01"),
        (struct.pack("!II", 7, 3 << 16), "08P01"),
        (request(3 << 16, b"user\0app"), "08P01"),
        (request(3 << 16, b"user\0app\0"), "08P01"),
        (request(3 << 16, b"user\0app\0user\0root\0\0"), "08P01"),
        (request(3 << 16, b"\0"), "28000"),
        (startup(major=2), "0A000"),
        (startup(major=4), "0A000"),
        (startup(options="endpoint=other"), "08P01"),
        (startup(options="endpoint=a.b"), "08P01"),
        (request(80877104), "08P01"),
    ],
)
async def test_malformed_packets_inside_tls(lone_door: World, sent: bytes, code: str) -> None:
    async with secure(lone_door) as raw:
        raw.send(sent)
        assert (await raw.error())["C"] == code


@pytest.mark.parametrize("sent", [b"", b"\0", request(SSL_REQUEST), b"\x16\x03"])
async def test_a_client_that_says_nothing(lone_door: World, monkeypatch: pytest.MonkeyPatch, sent: bytes) -> None:
    monkeypatch.setattr(door_module, "STARTUP_SECONDS", 0.3)
    async with plain(lone_door) as raw:
        raw.send(sent)
        if sent == request(SSL_REQUEST):
            assert await raw.reader.readexactly(1) == b"S"
        assert await raw.ended()


async def test_a_startup_packet_in_pieces(lone_door: World) -> None:
    async with secure(lone_door) as raw:
        for byte in startup():
            raw.send(bytes([byte]))
            await asyncio.sleep(0)
        assert (await raw.message())[0] == b"R"


@pytest.mark.parametrize(
    ("minor", "extensions", "negotiated"),
    [
        (0, {}, None),
        (2, {}, None),
        (3, {}, (3 << 16 | 2, [])),
        (9999, {"_pq_.test_protocol_negotiation": ""}, (3 << 16 | 2, [b"_pq_.test_protocol_negotiation"])),
        (0, {"_pq_.x": "1", "_pq_.y": ""}, (3 << 16, [b"_pq_.x", b"_pq_.y"])),
    ],
)
async def test_versions_that_are_negotiated(
    lone_door: World, minor: int, extensions: dict[str, str], negotiated: tuple[int, list[bytes]] | None
) -> None:
    async def serve(raw: Raw) -> None:
        raw.send(LOGGED_IN + key_data(7, b"abcd") + READY)
        await raw.reader.read()

    async with scripted(serve) as (port, packets):
        lone_door.databases[DATABASE] = port
        async with secure(lone_door) as raw:
            raw.send(startup(minor, **extensions))
            kind, body = await raw.message()
            if negotiated is not None:
                version, names = negotiated
                told = struct.pack("!II", version, len(names)) + b"".join(name + b"\0" for name in names)
                assert (kind, body) == (b"v", told)
                kind, body = await raw.message()
            assert (kind, body) == (b"R", b"\0\0\0\0")
            assert (await raw.message())[0] == b"S"
            kind, body = await raw.message()
            assert kind == b"K" and len(body) == (4 + 32 if minor >= 2 else 4 + 4)
            assert body[:4] != b"\0\0\0\7" and await raw.message() == (b"Z", b"I")
    assert packets == [startup()]  # the server is asked for 3.0, and nothing that it cannot know


async def test_parameters_of_the_client_reach_the_server(lone_door: World) -> None:
    async def serve(raw: Raw) -> None:
        raw.send(LOGGED_IN + READY)

    async with scripted(serve) as (port, packets):
        lone_door.databases[DATABASE] = port
        async with secure(lone_door, server_name="localhost") as raw:
            options = rf"-c geqo=off endpoint={DATABASE} -c application_name=a\ b"
            raw.send(startup(user=f"a@b@{DATABASE}", database="d", options=options, search_path="x"))
            assert (await raw.message())[0] == b"R"
    kept = r"-c geqo=off -c application_name=a\ b"
    assert packets == [startup(user="a@b", database="d", options=kept, search_path="x")]


async def exchange(world: World, server_name: str, first: bytes) -> list[tuple[bytes, bytes]]:
    """What a client hears who sends ``first`` after the server's offer, and goes on with a wrong password if it may."""
    heard = []
    async with secure(world, server_name=server_name) as raw:
        raw.send(startup())
        try:
            heard.append(await raw.message())
            raw.send(first)
            while True:
                heard.append(await raw.message())
                kind, body = heard[-1]
                if kind != b"R":
                    continue
                if body[4:]:
                    nonce, salt, count = body[4:].split(b",")
                    heard[-1] = (kind, b"%d %d %b" % (len(nonce), len(salt), count))
                    raw.send(message(b"p", b"c=biws," + nonce + b",p=" + b"A" * 43 + b"="))
                else:
                    raw.send(message(b"p", b"n,,n=,r=abc"))
        except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
            return heard


def chosen(first: bytes, size: int | None = None, name: bytes = b"SCRAM-SHA-256") -> bytes:
    size = len(first) if size is None else size
    return message(b"p", name + b"\0" + size.to_bytes(4) + first)


@pytest.mark.parametrize(
    ("first", "kinds"),
    [
        (chosen(b"n,,n=,r=abc"), "RRE"),
        (chosen(b"y,,n=x,r=abc"), "RRE"),
        (chosen(b"n,,n=,r=abc,x=y"), "RRE"),
        (chosen(b"n,,n=,r="), "RRE"),
        (chosen(b"", 2**32 - 1), "RRRE"),
        (chosen(b"p=tls-unique,,n=,r=abc"), "RE"),
        (chosen(b"n,a=x,n=,r=abc"), "RE"),
        (chosen(b"n,,n=\0,r=abc"), "RE"),
        (chosen(b"n,,m=1,n=,r=abc"), "RE"),
        (chosen(b"nonsense"), "RE"),
        (chosen(b"n,,n=,r=abc", 3), "RE"),
        (chosen(b"n,,n=,r=abc", name=b"SCRAM-SHA-256-PLUS"), "RE"),
        (message(b"p", b"password\0"), "RE"),
        (message(b"Q", b"SELECT 1\0"), "RE"),
        (chosen(b"n,,n=,r=" + b"a" * 2000), "RE"),
        (b"p\0\0\0\1", "RE"),
    ],
    ids=lambda each: each if isinstance(each, str) else "sent",
)
async def test_an_unknown_database_is_byte_by_byte_a_wrong_password(door: World, first: bytes, kinds: str) -> None:
    known = await exchange(door, HOST, first)
    assert known == await exchange(door, "other.localhost", first)
    assert "".join(kind.decode() for kind, _ in known) == kinds
    assert b"C28P01\0" in known[-1][1]


async def test_the_salt_of_an_unknown_database_stays(lone_door: World) -> None:
    async def salt(user: str, server_name: str) -> bytes:
        async with secure(lone_door, server_name=server_name) as raw:
            raw.send(startup(user=user))
            await raw.message()
            raw.send(message(b"p", b"SCRAM-SHA-256\0\0\0\0\x0bn,,n=,r=abc"))
            return (await raw.message())[1].split(b",")[1]

    one = await salt("app", "one.localhost")
    assert one == await salt("app", "one.localhost")
    assert len({one, await salt("app", "two.localhost"), await salt("root", "one.localhost")}) == 3


async def heard_from(world: World, answer: bytes) -> list[tuple[bytes, bytes]]:
    """What a client hears of a server that says ``answer`` and closes."""

    async def serve(raw: Raw) -> None:
        raw.send(answer)
        await raw.writer.drain()

    heard = []
    async with scripted(serve) as (port, _):
        world.databases[DATABASE] = port
        async with secure(world) as raw:
            raw.send(startup())
            with pytest.raises(asyncio.IncompleteReadError):
                while True:
                    heard.append(await raw.message())
    return heard


async def test_bound_channels_are_not_offered(lone_door: World) -> None:
    offered = authentication(SASL, b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0")
    assert await heard_from(lone_door, offered) == [(b"R", SASL.to_bytes(4) + b"SCRAM-SHA-256\0\0")]


@pytest.mark.parametrize(
    "answer",
    [
        authentication(3),
        authentication(5, b"salt"),
        authentication(7),
        authentication(SASL, b"SCRAM-SHA-256-PLUS\0\0"),
    ],
)
async def test_other_authentications_are_refused(lone_door: World, answer: bytes) -> None:
    ((kind, body),) = await heard_from(lone_door, answer)
    assert kind == b"E" and b"C28000\0" in body


@pytest.mark.parametrize("code", ["28000", "28P01", "08P01", "0A000", "XX000"])
async def test_errors_before_the_login_are_those_of_a_wrong_password(lone_door: World, code: str) -> None:
    ((kind, body),) = await heard_from(lone_door, refused(code, "a detail of the server"))
    assert kind == b"E" and b"C28P01\0" in body and b"detail" not in body


async def test_other_errors_are_passed_on(lone_door: World) -> None:
    assert await heard_from(lone_door, refused("53300")) == [(b"E", refused("53300")[5:])]
    answer = authentication(0) + refused("3D000", "no such database")
    assert (await heard_from(lone_door, answer))[-1] == (b"E", refused("3D000", "no such database")[5:])


@pytest.mark.parametrize(
    "answer", [b"D\0\0\0\4", b"R\0\0\0\3", b"R\x7f\0\0\0", LOGGED_IN + b"D\0\0\0\4", LOGGED_IN + b"K\0\0\0\4"]
)
async def test_servers_that_break_the_protocol(lone_door: World, answer: bytes) -> None:
    heard = await heard_from(lone_door, answer)
    assert [kind for kind, _ in heard] in ([], [b"R", b"S"], [b"E"])


async def test_a_server_without_cancel_keys(lone_door: World) -> None:
    assert [kind for kind, _ in await heard_from(lone_door, LOGGED_IN + READY)] == [b"R", b"S", b"Z"]


async def test_a_client_waits_for_a_server_that_starts(lone_door: World) -> None:
    count = 0

    async def serve(raw: Raw) -> None:
        nonlocal count
        count += 1
        if count == 1:
            return  # it closes at once
        raw.send(refused("57P03", "the database system is starting up") if count < 4 else LOGGED_IN + READY)
        await raw.writer.drain()

    async with scripted(serve) as (port, _):
        lone_door.databases[DATABASE] = port
        async with secure(lone_door) as raw:
            raw.send(startup())
            assert await raw.message() == (b"R", b"\0\0\0\0")
    assert count == 4


async def test_a_client_does_not_wait_for_ever(lone_door: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "WAKE_SECONDS", 0.5)
    lone_door.databases[DATABASE] = 1  # nobody listens
    async with secure(lone_door) as raw:
        raw.send(startup())
        assert (await raw.error())["C"] == "57P03"
    lone_door.may_wake.clear()
    lone_door.hibernate()
    async with secure(lone_door) as raw:
        raw.send(startup())
        assert (await raw.error())["C"] == "57P03"
    lone_door.may_wake.set()
    lone_door.wake_refusals["visitor"] = AsleepError("the sandbox sleeps")
    lone_door.hibernate()
    async with secure(lone_door) as raw:
        raw.send(startup())
        assert (await raw.error())["C"] == "57P03"
    lone_door.database_refusals[DATABASE] = UnavailableError("it is being made")
    async with secure(lone_door) as raw:
        raw.send(startup())
        assert (await raw.error())["C"] == "57P03"


async def test_clients_that_do_not_log_in_take_half_of_the_places(
    lone_door: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "LOGIN_SECONDS", 2)
    users: list[bytes] = []

    async def serve(raw: Raw) -> None:
        users.append(packets[-1])
        if b"silent" in packets[-1]:
            raw.send(authentication(SASL, b"SCRAM-SHA-256\0\0"))
        else:
            raw.send(LOGGED_IN + READY)
        await raw.reader.read()

    async with scripted(serve) as (port, packets):
        lone_door.databases[DATABASE] = port
        lone_door.most_clients = 4
        async with secure(lone_door) as one, secure(lone_door) as two, secure(lone_door) as three:
            for raw in (one, two):
                raw.send(startup(user="silent"))
                assert (await raw.message())[0] == b"R"
            three.send(startup())
            with anyio.move_on_after(0.5) as waited:
                await three.message()
            assert waited.cancelled_caught and len(users) == 2
            assert (await three.message())[0] == b"R"  # the others' time is over
            assert await one.ended() and await two.ended()


async def test_cancels(lone_door: World) -> None:
    """Only the own key, only while something runs; and what the client sends next waits for the cancel."""
    cancels: list[bytes] = []
    told, may_end = asyncio.Event(), asyncio.Event()
    queries: list[bytes] = []

    async def serve(raw: Raw) -> None:
        if packets[-1][4:8] == CANCEL_REQUEST.to_bytes(4):
            cancels.append(packets[-1])
            told.set()
            await may_end.wait()
            return
        raw.send(LOGGED_IN + key_data(7, b"abcd") + READY)
        while True:
            queries.append((await raw.message())[1])
            if queries[-1] == b"quick":
                raw.send(READY)

    async def cancel(body: bytes) -> None:
        async with plain(lone_door) as other:
            other.send(request(CANCEL_REQUEST, body))
            assert await other.ended()

    async with scripted(serve) as (port, packets):
        lone_door.databases[DATABASE] = port
        async with secure(lone_door) as raw:
            raw.send(startup())
            kind = mine = b""
            while kind != b"Z":
                kind, body = await raw.message()
                mine = body if kind == b"K" else mine
            await cancel(mine)  # nothing runs
            raw.send(message(b"Q", b"slow"))
            while not queries:  # noqa: ASYNC110
                await anyio.sleep(0.01)
            await cancel(b"\0\0\0\7abcd")  # the server's own key is nobody's
            await cancel(mine[:4] + b"abcd")
            await cancel(mine + b"x")
            assert not cancels
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(cancel, mine)
                await told.wait()
                raw.send(message(b"Q", b"quick"))
                await anyio.sleep(0.3)
                assert queries == [b"slow"]
                may_end.set()
            assert await raw.message() == (b"Z", b"I")
        assert cancels == [cancel_packet(7, b"abcd")] and queries == [b"slow", b"quick"]
        with anyio.move_on_after(0.5):
            await cancel(mine)  # the session is over
        assert len(cancels) == 1


async def test_the_connections_of_a_rewound_database_end(lone_door: World) -> None:
    async def serve(raw: Raw) -> None:
        raw.send(LOGGED_IN + READY)
        await raw.reader.read()

    async with scripted(serve) as (port, _):
        lone_door.databases[DATABASE] = port
        async with secure(lone_door) as raw:
            raw.send(startup(user=USER))
            while (await raw.message())[0] != b"Z":
                pass
            lone_door.rewind()
            assert await raw.ended()


async def test_a_client_that_leaves_before_it_is_logged_in_leaves_its_place(lone_door: World) -> None:
    async def serve(raw: Raw) -> None:
        raw.send(authentication(SASL, b"SCRAM-SHA-256\0\0"))
        await raw.reader.read()

    async with scripted(serve) as (port, packets):
        lone_door.databases[DATABASE] = port
        lone_door.most_clients = 1
        for _ in range(3):  # as psql does that has no password yet, and asks for it
            async with secure(lone_door) as raw:
                raw.send(startup())
                assert (await raw.message())[0] == b"R"
        lone_door.hibernate()
        lone_door.may_wake.clear()
        async with secure(lone_door) as raw:
            raw.send(startup())
            await lone_door.reported(lambda report: bool(report.connected))
        lone_door.may_wake.set()
        async with secure(lone_door) as raw:
            raw.send(startup())
            assert (await raw.message())[0] == b"R"
    assert len(packets) == 4
