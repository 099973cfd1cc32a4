"""Files by OpenSSH's sftp and scp, and by a client that knows the whole protocol."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import anyio
import asyncssh
import pytest

from tests.support.ssh import SANDBOX, Clients, connection, run

pytestmark = pytest.mark.anyio


async def batch(clients: Clients, *commands: str) -> str:
    """Run commands of sftp; returns what it printed."""
    argv = ["sftp", *clients.options(), "-b", "-", f"{SANDBOX}@127.0.0.1"]
    done = await run(argv, "\n".join(commands).encode() + b"\n")
    assert done.returncode == 0, done.stderr
    return done.stdout.decode()


async def test_files_and_directories_by_sftp(clients: Clients, tmp_path: Path) -> None:
    there, local = tmp_path / "there", tmp_path / "local"
    local.write_bytes(os.urandom(300_000))
    printed = await batch(
        clients,
        f"mkdir {there}",
        f"put {local} {there}/a",
        f"chmod 640 {there}/a",
        f"rename {there}/a {there}/b",
        f"ln -s b {there}/link",
        f"ln {there}/b {there}/hard",
        f"get {there}/link {tmp_path}/back",
        f"ls -l {there}",
        f"df {there}",
        f"rm {there}/hard",
        f"mkdir {there}/sub",
        f"rmdir {there}/sub",
    )
    assert (tmp_path / "back").read_bytes() == local.read_bytes() == (there / "b").read_bytes()
    assert stat.S_IMODE((there / "b").stat().st_mode) == 0o640
    assert (there / "link").readlink() == Path("b")
    assert sorted(each.name for each in there.iterdir()) == ["b", "link"]
    assert "-rw-r-----" in printed and "300000" in printed


async def test_scp_keeps_times_and_modes_of_a_tree(clients: Clients, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "sub" / "program").write_bytes(b"#!/bin/sh\n")
    (tree / "sub" / "program").chmod(0o751)
    os.utime(tree / "sub" / "program", (1_000_000_000, 1_100_000_000))
    (tree / "empty").touch()
    done = await run(["scp", *clients.options(), "-rpq", str(tree), f"{SANDBOX}@127.0.0.1:{tmp_path}/there"])
    assert done.returncode == 0, done.stderr
    program = tmp_path / "there" / "sub" / "program"
    assert stat.S_IMODE(program.stat().st_mode) == 0o751
    assert program.stat().st_mtime == 1_100_000_000
    back = await run(["scp", *clients.options(), "-rpq", f"{SANDBOX}@127.0.0.1:{tmp_path}/there", f"{tmp_path}/back"])
    assert back.returncode == 0, back.stderr
    assert (tmp_path / "back" / "sub" / "program").read_bytes() == b"#!/bin/sh\n"
    assert (tmp_path / "back" / "empty").read_bytes() == b""


async def test_a_large_file_goes_up_and_down(clients: Clients, tmp_path: Path) -> None:
    large = tmp_path / "large"
    large.write_bytes(os.urandom(24 << 20))
    for source, target in (
        (f"{large}", f"{SANDBOX}@127.0.0.1:{large}.up"),
        (f"{SANDBOX}@127.0.0.1:{large}.up", f"{large}.down"),
    ):
        done = await run(["scp", *clients.options(), "-q", source, target])
        assert done.returncode == 0, done.stderr
    assert Path(f"{large}.down").read_bytes() == large.read_bytes()


@pytest.mark.skipif(os.geteuid() != 0, reason="the agent's user is its own without root")
async def test_the_old_scp_runs_in_the_guest(clients: Clients, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")
    done = await run(["scp", *clients.options(), "-Oq", str(tmp_path / "a"), f"{SANDBOX}@127.0.0.1:{tmp_path}/b"])
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "b").read_bytes() == b"old"


async def test_what_sftp_promises_of_each_request(clients: Clients, tmp_path: Path) -> None:
    async with asyncssh.connect(**connection(clients)) as client, client.start_sftp_client() as sftp:
        name = str(tmp_path / "file")
        async with sftp.open(name, "wb") as file:
            await file.write(b"0123456789")
        async with sftp.open(name, "ab") as file:
            await file.write(b"more")
        assert await sftp.getsize(name) == 14
        async with sftp.open(name, "rb+") as file:
            await file.write(b"XX", offset=2)
            assert await file.read(4, offset=1) == b"1XX4"
            await file.fsync()
            await file.truncate(5)
        assert (tmp_path / "file").read_bytes() == b"01XX4"
        with pytest.raises(asyncssh.SFTPFailure):
            await sftp.open(name, "xb")
        with pytest.raises(asyncssh.SFTPNoSuchFile):
            await sftp.stat(str(tmp_path / "missing"))
        with pytest.raises(asyncssh.SFTPFailure):
            await sftp.rmdir(str(tmp_path))
        await sftp.chmod(name, 0o604)
        assert stat.S_IMODE((await sftp.stat(name)).permissions or 0) == 0o604
        await sftp.utime(name, (5, 6))
        assert (tmp_path / "file").stat().st_mtime == 6


async def test_a_rename_replaces_only_where_posix_does(clients: Clients, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a")
    (tmp_path / "b").write_bytes(b"b")
    async with asyncssh.connect(**connection(clients)) as client, client.start_sftp_client() as sftp:
        with pytest.raises(asyncssh.SFTPFailure):
            await sftp.rename(str(tmp_path / "a"), str(tmp_path / "b"))
        assert (tmp_path / "b").read_bytes() == b"b"
        await sftp.posix_rename(str(tmp_path / "a"), str(tmp_path / "b"))
        assert (tmp_path / "b").read_bytes() == b"a"


async def test_links_are_links(clients: Clients, tmp_path: Path) -> None:
    async with asyncssh.connect(**connection(clients)) as client, client.start_sftp_client() as sftp:
        await sftp.symlink("nowhere", str(tmp_path / "link"))
        assert await sftp.readlink(str(tmp_path / "link")) == "nowhere"
        assert await sftp.islink(str(tmp_path / "link"))
        assert not await sftp.exists(str(tmp_path / "link"))
        await sftp.remove(str(tmp_path / "link"))
        assert await sftp.realpath(f"{tmp_path}/./../{tmp_path.name}/new") == str(tmp_path.resolve() / "new")


async def test_a_directory_of_many_entries_is_listed_whole(clients: Clients, tmp_path: Path) -> None:
    for number in range(1000):
        (tmp_path / f"n{number}").touch()
    async with asyncssh.connect(**connection(clients)) as client, client.start_sftp_client() as sftp:
        found = {str(each) for each in await sftp.listdir(str(tmp_path))}
    assert {f"n{number}" for number in range(1000)} <= found


async def test_a_malformed_request_ends_the_server_and_nothing_else(clients: Clients) -> None:
    async with asyncssh.connect(**connection(clients)) as client:
        process = await client.create_process(subsystem="sftp", encoding=None)
        process.stdin.write(b"\xff\xff\xff\xff garbage")
        with anyio.fail_after(10):
            assert await process.stdout.read() == b""
        assert str((await client.run("echo alive")).stdout).strip() == "alive"
