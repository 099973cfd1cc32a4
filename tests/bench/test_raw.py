"""The bare channel's reader, against the real agent as a process."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pandastack.bench import tunnel
from pandastack.bench.exec import Samples, rows
from pandastack.bench.raw import RawChannel
from pandastack.bench.tunnel import Rates
from pandastack.guest.agent import binary
from tests.support.installation import eventually


@pytest.fixture
def channel() -> Iterator[RawChannel]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        argv = [str(binary()), "--fd", str(theirs.fileno()), "--no-identity"]
        with subprocess.Popen(argv, pass_fds=[theirs.fileno()]) as process:
            theirs.close()
            ours.settimeout(30)
            assert ours.recv(9)[4] == 1  # HELLO; its payload follows
            ours.recv(100)
            yield RawChannel(ours)
            ours.close()
            process.wait(30)


def test_a_file_goes_in_and_out_and_a_command_prints_it(channel: RawChannel, tmp_path: Path) -> None:
    data = bytes(range(256)) * 8192
    assert channel.upload(str(tmp_path / "file"), data) > 0
    assert (tmp_path / "file").read_bytes() == data
    assert channel.download(str(tmp_path / "file")) > 0
    assert channel.command(f"cat {tmp_path}/file {tmp_path}/file; echo x >&2") > 0


def test_transfers_are_held_against_the_raw_ones() -> None:
    names = Samples.__dataclass_fields__
    measured = {name: [1.0, 2.0, 4.0] for name in names} | {"raw_upload": [4.0, 4.0, 4.0]}
    samples = Samples(**measured | {"tunnel": Rates([1.0], [2.0], [2.0], [4.0])})
    found = {row.name: row.ratio for row in rows(samples)}
    assert (found["exec_stream"], found["file_upload"], found["pty_echo"]) == (1.0, 0.5, None)
    assert (found["tunnel_download"], found["tunnel_upload"]) == (0.5, 0.5)


def test_tunnels_are_measured_on_the_same_guest(channel: RawChannel, tmp_path: Path) -> None:
    rates = tunnel.measure(channel, 2, str(tmp_path / "bench"))
    assert all(len(each) == 2 for each in vars(rates).values())
    eventually(lambda: not list(tmp_path.iterdir()), 60, "the program in the guest removes its socket")
