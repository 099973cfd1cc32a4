"""Sweep, console and checks against this host's own processes, sockets and files."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import anyio
import pytest

from pandastack.engine import doctor
from pandastack.engine import layout as engine_layout
from pandastack.engine.doctor import TOOLS, Verdict, examine
from pandastack.engine.layout import Layout
from pandastack.engine.machines.console import KEEP_BYTES, Console
from pandastack.engine.machines.names import machine_name
from pandastack.engine.recovery.sweep import end_machines, remove_files
from pandastack.errors import ServerError
from pandastack.host import facts
from pandastack.vmm.qemu import preload
from tests.support.installation import eventually


def process_named(*words: str) -> subprocess.Popen[bytes]:
    """A process that, from outside, looks as if it were called with ``words``."""
    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", *words])


@pytest.fixture
def processes() -> Iterator[dict[str, subprocess.Popen[bytes]]]:
    started = {
        "ours": process_named("-name", machine_name("feed0001", "beef"), "-M", "microvm"),
        "another engine's": process_named("-name", machine_name("feed0002", "beef")),
        "no machine": process_named(machine_name("feed0001", "beef")),
        "a strange one": process_named("-name"),
    }
    yield started
    for each in started.values():
        each.kill()
        each.wait()


def test_a_sweep_ends_what_is_its_own(processes: dict[str, subprocess.Popen[bytes]], tmp_path: Path) -> None:
    machines, sockets = tmp_path / "machines", tmp_path / "sockets"
    for each in (machines / "beef", sockets / "beef", machines / "other"):
        each.mkdir(parents=True)
        (each / "file").touch()
    end_machines("feed0001", keep={"other"})
    remove_files((machines, sockets), keep={"other"})
    assert processes["ours"].wait(30) == -9
    assert [name for name, each in processes.items() if each.poll() is not None] == ["ours"]
    assert ([each.name for each in machines.iterdir()], list(sockets.iterdir())) == (["other"], [])


def test_a_sweep_of_nothing(tmp_path: Path) -> None:
    end_machines("feed0003", keep=())
    remove_files((tmp_path / "none",), keep=())
    assert not (tmp_path / "none").exists()


@pytest.mark.anyio
async def test_the_console_keeps_the_end_and_stays_bounded(tmp_path: Path) -> None:
    console = Console(tmp_path / "console.log")
    assert console.tail() == b""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "socket"))
    listener.listen()
    printed = b"".join(b"line %07d\n" % number for number in range(100_000))
    async with console.following(tmp_path / "socket"):
        peer = await anyio.to_thread.run_sync(listener.accept)
        for start in range(0, len(printed), 50_000):
            await anyio.to_thread.run_sync(peer[0].sendall, printed[start : start + 50_000])
            await anyio.lowlevel.checkpoint()
            if (tmp_path / "console.log").exists():
                assert (tmp_path / "console.log").stat().st_size <= 2 * KEEP_BYTES + 65536
        peer[0].close()
        await anyio.to_thread.run_sync(
            eventually, lambda: console.tail().endswith(printed[-14:]), 10, "everything is written"
        )
    listener.close()
    assert console.tail() == printed[-KEEP_BYTES:]
    assert console.tail(14) == printed[-14:]


@pytest.mark.anyio
async def test_followers_of_a_console_see_what_comes_and_its_end(tmp_path: Path) -> None:
    (tmp_path / "console.log").write_bytes(b"before\n")
    console = Console(tmp_path / "console.log")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "socket"))
    listener.listen()
    slow = console.pieces()
    with anyio.fail_after(20), listener:
        async with console.following(tmp_path / "socket"):
            (peer, _) = await anyio.to_thread.run_sync(listener.accept)
            assert await anext(slow) == b"before\n"
            quick = console.pieces()
            assert await anext(quick) == b"before\n"
            for text in (b"one\n", b"two\n"):
                await anyio.to_thread.run_sync(peer.sendall, text)
                assert await anext(quick) == text
            peer.close()
        assert [piece async for piece in quick] == []
    assert [piece async for piece in slow] == [b"one\ntwo\n"], "what it has missed comes in one piece"
    assert [piece async for piece in console.pieces()] == [b"before\none\ntwo\n"]


@pytest.mark.anyio
async def test_a_console_that_nobody_offers_is_no_error(tmp_path: Path) -> None:
    console = Console(tmp_path / "console.log")
    async with console.following(tmp_path / "nothing"):
        await anyio.lowlevel.checkpoint()
    assert console.tail() == b""


def found(layout: Layout) -> dict[str, doctor.Check]:
    return {each.name: each for each in examine(layout)}


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "data", tmp_path / "cache")


def test_everything_is_examined_and_nothing_is_made(layout: Layout, tmp_path: Path) -> None:
    names = set(found(layout))
    assert {tool.program for tool in TOOLS} < names
    assert {"python", "architecture", "privileges", "kvm", "memory", "data directory", "reflink"} < names
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_well_has_a_fix(layout: Layout) -> None:
    assert [each.name for each in examine(layout) if each.verdict is not Verdict.OK and not each.fix] == []


def test_a_tool_that_is_missing(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facts, "program", lambda name: None)
    checked = found(layout)
    for tool in TOOLS:
        assert checked[tool.program].verdict is (Verdict.FAIL if tool.needed else Verdict.WARN)
        assert checked[tool.program].fix == f"apt-get install {tool.package}"


def test_the_makefile_installs_every_package() -> None:
    makefile = (Path(__file__).parents[2] / "Makefile").read_text()
    packages = next(line for line in makefile.splitlines() if line.startswith("PACKAGES")).split()
    essential = {"dpkg"}
    assert set(doctor.SYSTEM_PACKAGES) - essential <= set(packages)


def test_a_directory_that_cannot_be_written(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facts, "can_write", lambda path: False)
    assert found(layout)["data directory"].verdict is Verdict.FAIL


def test_without_root_it_is_said(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facts, "is_root", lambda: False)
    assert found(layout)["privileges"].verdict is Verdict.WARN


def test_where_namespaces_cannot_be_made_it_is_said(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = Verdict.OK if facts.is_root() else Verdict.WARN
    assert found(layout)["network namespaces"].verdict is expected
    monkeypatch.setenv("PATH", "/nowhere")
    assert found(layout)["network namespaces"].verdict is Verdict.WARN


def test_where_shared_memory_is_writable_it_is_said(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    assert found(layout)["shared memory"].verdict is Verdict.OK
    monkeypatch.setattr(preload, "is_possible", lambda: False)
    assert found(layout)["shared memory"].verdict is Verdict.WARN


def put_open(place: Path) -> None:
    place.mkdir()
    place.chmod(0o777)


def put_link(place: Path) -> None:
    place.with_name("elsewhere").mkdir(0o700)
    place.symlink_to("elsewhere")


@pytest.mark.parametrize("put", [put_open, put_link])
def test_a_runtime_directory_that_somebody_has_put_there_is_refused(
    put: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(facts, "is_root", lambda: False)
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setattr(engine_layout, "runtime_directory", lambda: tmp_path / "pandastack-1000" / "pandastack")
    put(tmp_path / "pandastack-1000")
    with pytest.raises(ServerError) as refused:
        engine_layout.open_runtime_directory()
    assert "XDG_RUNTIME_DIR" in (refused.value.hint or "")
    assert not (tmp_path / "pandastack-1000" / "pandastack").exists()


def test_a_runtime_directory_is_only_for_its_owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facts, "is_root", lambda: False)
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setattr(engine_layout, "runtime_directory", lambda: tmp_path / "pandastack-1000" / "pandastack")
    engine_layout.open_runtime_directory()
    for path in (tmp_path / "pandastack-1000", tmp_path / "pandastack-1000" / "pandastack"):
        assert path.stat().st_mode & 0o777 == 0o700
