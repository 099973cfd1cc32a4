"""The recording proxy's process between an ordinary client and a host."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import anyio
import httpx
import pytest

from pandastack.recorder.blobs import Blobs
from pandastack.recorder.client import open_recorder
from pandastack.recorder.lock import Lock, parse_lock
from pandastack.recorder.messages import Mode, Report, Start
from tests.recorder.world import BIG, LOOPBACK, UID, Host, open_host, open_stage

pytestmark = pytest.mark.anyio


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    with open_host(tmp_path / "trust.pem") as made:
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "trust.pem"))
        yield made


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    made = tmp_path / "spool"
    made.mkdir(mode=0o700)
    if UID is not None:
        os.chown(made, UID, UID)
    return made


@pytest.fixture
def blobs(tmp_path: Path) -> Blobs:
    made = Blobs(tmp_path / "fetched" / "one")
    made.make()
    return made


def seen(report: Report) -> list[tuple[str, str, int]]:
    return [(each.method, each.url.partition("localhost")[2][6:], each.status) for each in entries(report).entries]


def entries(report: Report) -> Lock:
    return parse_lock(report.lock)


async def test_what_was_recorded_is_replayed_without_the_host(host: Host, spool: Path, blobs: Blobs) -> None:
    paths = ("/a", "/missing", "/big", "/varies", "/moved")

    async def fetched(client: httpx.AsyncClient) -> list[tuple[int, bytes, dict[str, str]]]:
        found = [await client.get(f"{host.url}{path}") for path in paths]
        found.append(await client.get(f"{host.plain}/plain?x=1"))
        found.append(await client.head(f"{host.url}/a"))
        found.append(await client.get(f"{host.url}/varies", headers={"Accept": "text/x"}))
        return [(each.status_code, each.content, dict(each.headers)) for each in found]

    async with open_stage(spool, Mode.RECORD) as stage:
        recorded = await fetched(stage.client)
        report = await stage.recorder.finish()
    assert [(status, body) for status, body, _ in recorded] == [
        (200, b"first"),
        (404, b"first"),
        (200, BIG),
        (200, b"*/*"),
        (302, b"first"),
        (200, b"first"),
        (200, b""),
        (200, b"text/x"),
    ]
    assert recorded[4][2]["location"] == "/there"
    assert not any("set-cookie" in headers or "date" in headers for _, _, headers in recorded)
    assert len(entries(report).entries) == len(recorded)
    blobs.adopt(spool, entries(report))
    asked = len(host.seen)
    async with open_stage(blobs.directory, Mode.REPLAY, report.lock) as stage:
        assert await fetched(stage.client) == recorded
        used = await stage.recorder.finish()
    assert (used.lock, used.refused) == (report.lock, ())
    assert len(host.seen) == asked


async def test_a_request_that_the_lock_does_not_name_is_refused_and_reported(
    host: Host, spool: Path, blobs: Blobs
) -> None:
    async with open_stage(spool, Mode.RECORD) as stage:
        await stage.client.get(f"{host.url}/a")
        await stage.client.get(f"{host.url}/b")
        await stage.client.get(f"{host.url}/varies", headers={"Accept": "text/x"})
        report = await stage.recorder.finish()
    blobs.adopt(spool, entries(report))
    async with open_stage(blobs.directory, Mode.REPLAY, report.lock) as stage:
        assert (await stage.client.get(f"{host.url}/a")).content == b"first"
        refused = [
            await stage.client.get(f"{host.url}/a?x"),
            await stage.client.head(f"{host.url}/a"),
            await stage.client.get(f"{host.plain}/a"),
            await stage.client.get(f"{host.url}/varies", headers={"Accept": "text/y"}),
        ]
        used = await stage.recorder.finish()
    assert {each.status_code for each in refused} == {403}
    assert refused[0].text == f"the lock does not name GET {host.url}/a?x\n"
    assert refused[0].reason_phrase == f"the lock does not name GET {host.url}/a?x"
    assert [(each.method, each.url) for each in used.refused] == [
        ("GET", f"{host.url}/a?x"),
        ("HEAD", f"{host.url}/a"),
        ("GET", f"{host.plain}/a"),
        ("GET", f"{host.url}/varies"),
    ]
    assert seen(used) == [("GET", "/a", 200)]


async def test_a_resource_is_fetched_once_in_a_build(host: Host, spool: Path) -> None:
    async with open_stage(spool, Mode.RECORD) as stage:
        first = await stage.client.get(f"{host.url}/a")
        host.content = b"second"
        again = await stage.client.get(f"{host.url}/a")
        await stage.recorder.finish()
    assert (first.content, again.content, host.asked("/a")) == (b"first", b"first", 1)


async def test_requests_at_once_are_one_fetch(host: Host, spool: Path) -> None:
    found: list[bytes] = []

    async with open_stage(spool, Mode.RECORD) as stage:

        async def fetch() -> None:
            found.append((await stage.client.get(f"{host.url}/big")).content)

        async with anyio.create_task_group() as tasks:
            for _ in range(8):
                tasks.start_soon(fetch)
        await stage.recorder.finish()
    assert (found == [BIG] * 8, host.asked("/big")) == (True, 1)


async def test_readers_follow_a_fetch_and_it_outlives_them(host: Host, spool: Path) -> None:
    async with open_stage(spool, Mode.RECORD) as stage:
        async with stage.client.stream("GET", f"{host.url}/chunked") as begun:
            assert await anext(begun.aiter_raw()) == b"one"  # while the host holds the rest back
        host.hold.set()
        report = await stage.recorder.finish()
        assert host.asked("/chunked") == 1
    assert [(each.size, each.status) for each in entries(report).entries] == [(6, 200)]
    assert [path.read_bytes() for path in spool.iterdir()] == [b"onetwo"]


async def test_what_tells_of_a_moment_is_passed_on_and_not_recorded(host: Host, spool: Path) -> None:
    async with open_stage(spool, Mode.RECORD) as stage:
        assert (await stage.client.get(f"{host.url}/busy")).status_code == 503
        with pytest.raises(httpx.RemoteProtocolError):
            await stage.client.get(f"{host.url}/cut")
        report = await stage.recorder.finish()
    assert entries(report) == Lock()
    assert ["/cut" in each.url for each in report.refused] == [True]
    assert list(spool.iterdir()) == []


async def test_credentials_bodies_and_other_methods_are_refused(host: Host, spool: Path) -> None:
    async with open_stage(spool, Mode.RECORD) as stage:
        refused = [
            await stage.client.get(f"{host.url}/a", headers={"Authorization": "Bearer secret"}),
            await stage.client.post(f"{host.url}/a", content=b"x"),
            await stage.client.request("GET", f"{host.url}/a", content=b"x"),
            await stage.client.put(f"{host.plain}/a", content=b"x" * 3_000_000),
        ]
        report = await stage.recorder.finish()
    assert {each.status_code for each in refused} == {403}
    assert (host.seen, entries(report)) == ([], Lock())
    assert "secret" not in repr(report)


async def test_only_public_addresses_and_verified_hosts_are_reached(
    host: Host, spool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_stage(spool, Mode.RECORD, networks=()) as stage:
        private = [await stage.client.get(f"{host.url}/a"), await stage.client.get("http://169.254.169.254/latest")]
        await stage.recorder.finish()
    assert [(each.status_code, "not a public address" in each.text) for each in private] == [(502, True)] * 2
    monkeypatch.setenv("SSL_CERT_FILE", "/dev/null")
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "none"))
    async with open_stage(spool, Mode.RECORD) as stage:
        unverified = await stage.client.get(f"{host.url}/a")
        await stage.recorder.finish()
    assert (unverified.status_code, "certificate" in unverified.text) == (502, True)
    assert host.seen == []


async def test_a_build_fetches_no_more_than_its_limit(host: Host, spool: Path) -> None:
    async with open_stage(spool, Mode.RECORD, most=1_000_000) as stage:
        with pytest.raises(httpx.RemoteProtocolError):
            await stage.client.get(f"{host.url}/big")
        report = await stage.recorder.finish()
    assert ["more than 1000000 bytes" in each.reason for each in report.refused] == [True]
    assert list(spool.iterdir()) == []


@pytest.mark.parametrize("fault", ["changed", "gone"])
async def test_a_body_that_is_not_the_locks_is_never_given(host: Host, spool: Path, blobs: Blobs, fault: str) -> None:
    async with open_stage(spool, Mode.RECORD) as stage:
        await stage.client.get(f"{host.url}/a")
        report = await stage.recorder.finish()
    blobs.adopt(spool, entries(report))
    (path,) = blobs.directory.iterdir()
    if fault == "changed":
        path.write_bytes(b"other")
    else:
        path.unlink()
    async with open_stage(blobs.directory, Mode.REPLAY, report.lock) as stage:
        refused = await stage.client.get(f"{host.url}/a")
        used = await stage.recorder.finish()
    assert (refused.status_code, entries(used)) == (502, Lock())
    assert [each.url for each in used.refused] == [f"{host.url}/a"]


async def test_bodies_are_fetched_again_and_compared_with_the_lock(host: Host, spool: Path) -> None:
    async with open_stage(spool, Mode.RECORD) as stage:
        for path in ("/a", "/big", "/varies"):
            await stage.client.get(f"{host.url}{path}", headers={"Accept": "text/x"})
        report = await stage.recorder.finish()
    for each in spool.iterdir():
        each.unlink()
    host.content = b"second"
    async with open_recorder(spool, Start(Mode.REFETCH, report.lock, LOOPBACK, 1 << 26), UID) as recorder:
        again = await recorder.refetched()
    assert seen(again) == [("GET", "/big", 200), ("GET", "/varies", 200)]
    assert [(each.url, each.reason) for each in again.refused] == [
        (f"{host.url}/a", "what is there now has another hash")
    ]
    assert {each.name for each in spool.iterdir()} == {each.sha256 for each in entries(again).entries}


HOSTILE = (
    b"GET /a HTTP/1.1\r\n\r\n",
    b"\0\0\0\0\r\n\r\n",
    b"CONNECT localhost:99999 HTTP/1.1\r\nHost: x\r\n\r\n",
    b"CONNECT me:pw@localhost:1 HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET http://localhost/ HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"GET http://localhost/ HTTP/1.1\r\nHost: x\r\nA: " + b"x" * 200_000 + b"\r\n\r\n",
    b"GET http://localhost/" + b"x" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET http://localhost/\xff HTTP/1.1\r\nHost: x\r\n\r\n",
)


async def test_malformed_requests_get_an_answer_and_do_no_harm(host: Host, spool: Path) -> None:
    async with open_stage(spool, Mode.RECORD) as stage:
        for data in HOSTILE:
            async with await anyio.connect_tcp("127.0.0.1", stage.port) as client:
                await client.send(data)
                with anyio.fail_after(60):
                    assert (await client.receive()).startswith(b"HTTP/1.1 4"), data[:60]
        async with await anyio.connect_tcp("127.0.0.1", stage.port) as client:
            await client.send(b"CONNECT localhost:443 HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b" 200 " in await client.receive()
            await client.send(b"\x16\3\1\0\5hello")
            with anyio.fail_after(60), contextlib.suppress(anyio.BrokenResourceError):
                async for _ in client:  # an alert, and the end
                    pass
        assert (await stage.client.get(f"{host.url}/a")).content == b"first"
        await stage.recorder.finish()


@pytest.mark.root
async def test_a_replay_has_no_network_and_no_privileges(blobs: Blobs) -> None:
    before = {int(each.name) for each in Path("/proc").iterdir() if each.name.isdecimal()}
    async with open_recorder(blobs.directory, Start(Mode.REPLAY, Lock().text, (), 1), UID):
        own = [each for each in _children(os.getpid()) if each not in before]
        (pid,) = [each for each in own if b"pandastack.recorder" in Path(f"/proc/{each}/cmdline").read_bytes()]
        status = Path(f"/proc/{pid}/status").read_text()
        assert f"Uid:\t{UID}\t{UID}\t{UID}\t{UID}" in status
        assert "CapEff:\t0000000000000000" in status
        assert Path(f"/proc/{pid}/net/dev").read_text().count("\n") == 3  # two lines of titles, and lo
    assert not Path(f"/proc/{pid}").exists()


def _children(parent: int) -> list[int]:
    found = []
    for each in Path("/proc").iterdir():
        if each.name.isdecimal():
            try:
                stat = (each / "stat").read_text()
            except OSError:
                continue
            if int(stat.rpartition(")")[2].split()[1]) == parent:
                found.append(int(each.name))
    return found
