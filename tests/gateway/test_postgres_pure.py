"""The pure parts of the PostgreSQL door: any bytes in any pieces."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pandastack.gateway.postgres.decoy import Decoy
from pandastack.gateway.postgres.login import Login
from pandastack.gateway.postgres.messages import (
    CANCEL_REQUEST,
    GSS_REQUEST,
    SSL_REQUEST,
    Cancel,
    Encryption,
    Frames,
    Malformed,
    Refusal,
    Startup,
    authentication,
    cancel_packet,
    error,
    error_code,
    key_data,
    mechanisms,
    message,
    packet_size,
    parse_key_data,
    parse_packet,
    startup_packet,
)
from pandastack.gateway.postgres.names import database_of, take_endpoints, wanted
from pandastack.gateway.postgres.relay import Watch
from pandastack.gateway.postgres.sessions import Session
from pandastack.model.databases import DatabaseRoute, is_database_id
from tests.gateway.postgres_clients import frames

WORDS = st.binary(min_size=1, max_size=12).map(lambda each: each.replace(b"\0", b"x"))
MESSAGES = st.lists(
    st.tuples(st.sampled_from([b"R", b"S", b"K", b"Z", b"E", b"N", b"D", b"v"]), st.binary(max_size=40)), max_size=8
)


def pieces(data: bytes, step: int) -> list[bytes]:
    return [data[at : at + step] for at in range(0, len(data), step)]


@given(st.dictionaries(WORDS, WORDS, max_size=6))
def test_startup_packets(parameters: dict[bytes, bytes]) -> None:
    packet = startup_packet(parameters)
    assert parse_packet(packet) == Startup(0, parameters) and packet_size(packet) == len(packet)


@given(st.integers(0, 2**32 - 1), st.binary(min_size=1, max_size=256))
def test_cancels_and_keys(pid: int, key: bytes) -> None:
    assert parse_packet(cancel_packet(pid, key)) == Cancel(pid, key)
    assert parse_key_data(key_data(pid, key)[5:]) == (pid, key)


@given(
    st.sampled_from([SSL_REQUEST, GSS_REQUEST, CANCEL_REQUEST, 3 << 16, 3 << 16 | 2, 2 << 16]), st.binary(max_size=300)
)
def test_any_packet(code: int, rest: bytes) -> None:
    packet = (8 + len(rest)).to_bytes(4) + code.to_bytes(4) + rest
    with suppress(Malformed, Refusal):
        assert isinstance(parse_packet(packet), Encryption | Cancel | Startup)


@given(MESSAGES, st.integers(1, 50))
def test_messages_in_pieces(messages: list[tuple[bytes, bytes]], step: int) -> None:
    parser = Frames(64)
    data = b"".join(message(*each) for each in messages)
    assert [found for piece in pieces(data, step) for found in parser.feed(piece)] == messages
    assert parser.rest == b""


@pytest.mark.parametrize("size", [0, 3, 4 + 65, 2**32 - 1])
def test_messages_of_impossible_sizes(size: int) -> None:
    with pytest.raises(Malformed):
        list(Frames(64).feed(b"R" + size.to_bytes(4)))


@given(MESSAGES, st.integers(1, 50))
def test_a_login_in_pieces(messages: list[tuple[bytes, bytes]], step: int) -> None:
    """Whatever a server says, the pieces do not matter, and its own cancel key reaches nobody."""
    data = authentication(0) + b"".join(message(*each) for each in messages)
    results = []
    for each in (step, len(data)):
        login, said = Login(b"app", b"mine!"), b""
        try:
            for piece in pieces(data, each):
                said += login.feed(piece) if not (login.ready or login.failed) else piece if login.ready else b""
            results.append((said, login.ready, login.failed, login.key))
        except Malformed as malformed:
            results.append((str(malformed).encode(), login.ready, login.failed, None))
    assert results[0] == results[1]
    if results[0][3] is not None and results[0][1]:
        assert b"mine!" in results[0][0]


@given(st.binary(max_size=200), st.integers(1, 30))
def test_any_bytes_of_a_server(data: bytes, step: int) -> None:
    login = Login(b"app", b"mine")
    with suppress(Malformed, Refusal):
        for piece in pieces(data, step):
            login.feed(piece)


@given(st.binary(max_size=300), st.integers(1, 40))
def test_a_decoy_only_ever_refuses(data: bytes, step: int) -> None:
    decoy = Decoy(b"secret", "db", b"app")
    said = b"".join(decoy.feed(piece) for piece in pieces(data, step) if not decoy.over)
    for kind, body in frames(said):
        assert kind == b"R" or (kind == b"E" and error_code(body) == "28P01")


def test_an_error_is_one_line_for_each_field() -> None:
    ((kind, body),) = frames(error(Refusal("08004", 'no "x"\0y', "a hint")))
    assert (kind, body) == (b"E", b'SFATAL\0VFATAL\0C08004\0Mno "x"y\0Ha hint\0\0')
    assert error_code(body) == "08004" and error_code(b"") == ""


@pytest.mark.parametrize("body", [b"", b"\0", b"A", b"A\0", b"A\0\0\0", b"\0\0", b"A\0\0B\0\0"])
def test_malformed_mechanisms(body: bytes) -> None:
    with pytest.raises(Malformed):
        mechanisms(body)


@pytest.mark.parametrize(
    ("name", "id"),
    [
        ("calm-panda.db.test", "calm-panda"),
        ("calm-panda.localhost", "calm-panda"),
        ("x.calm-panda.db.test", None),
        ("db.test", None),
        ("localhost", None),
        ("calm-panda.db.test.evil", None),
        ("-x.localhost", None),
        ("", None),
        (None, None),
    ],
)
def test_server_names(name: str | None, id: str | None) -> None:
    assert database_of(name, ["db.test", "localhost"]) == id


@pytest.mark.parametrize(
    ("options", "ids", "rest"),
    [
        (b"", [], b""),
        (b"endpoint=a", ["a"], b""),
        (b"  project=A\t-c x=y ", ["a"], b"-c x=y"),
        (b"-c endpoint=a", [], b"-c endpoint=a"),
        (b"-c x=y  -c  z=\\ endpoint=a", [], b"-c  z=\\ endpoint=a"),
        (b"endpoint=a endpoint=b", ["a", "b"], b""),
        (b"-csearch_path=a\\ b endpoint=a", ["a"], b"-csearch_path=a\\ b"),
        (b"end\\point=a", ["a"], b""),
        (b"xendpoint=a", [], b"xendpoint=a"),
    ],
)
def test_options(options: bytes, ids: list[str], rest: bytes) -> None:
    found, left = take_endpoints(options)
    assert found == ids and (left == rest if ids else left == options)


@given(st.binary(max_size=60))
def test_any_options(options: bytes) -> None:
    with suppress(Refusal):
        ids, rest = take_endpoints(options)
        assert all(is_database_id(each) for each in ids)
        assert take_endpoints(rest)[0] == [] or b"-c" in options


@pytest.mark.parametrize(
    ("user", "server_name", "database", "role"),
    [
        (b"app@db", None, "db", b"app"),
        (b"app@db", "db.localhost", "db", b"app"),
        (b"app@other", "db.localhost", "db", b"app@other"),
        (b"app@example.org", "db.localhost", "db", b"app@example.org"),
        (b"a@b@DB", None, "db", b"a@b"),
        (b"app", "db.localhost", "db", b"app"),
    ],
)
def test_user_names(user: bytes, server_name: str | None, database: str, role: bytes) -> None:
    found = wanted(Startup(0, {b"user": user, b"database": user}), server_name, ["localhost"])
    assert (found.database, found.user, found.parameters[b"database"]) == (database, role, role)


@pytest.mark.parametrize("user", [b"app", b"@db", b"app@", b"app@-", b"app@example.org"])
def test_no_name_at_all(user: bytes) -> None:
    with pytest.raises(Refusal, match="names no database"):
        wanted(Startup(0, {b"user": user}), "localhost", ["localhost"])


@given(st.lists(st.sampled_from([b"I", b"T", b"E"]), min_size=1, max_size=4), st.integers(1, 9))
def test_the_end_of_an_answer_in_pieces(states: list[bytes], step: int) -> None:
    session = Session(DatabaseRoute("s", 1, 1), 1, b"k")
    watch = Watch(session)
    for state in states:
        for piece in pieces(message(b"D", b"some row") + message(b"Z", state), step):
            assert session.running or piece.startswith(b"D")
            watch.feed(piece)
        assert not session.running, state
    watch.feed(message(b"A", b"a notification"))
    assert not session.running
