"""Several builds at once: what they share is made once, and their machines weigh little beside sandboxes."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pandastack import Client
from pandastack.host import facts
from tests.support.installation import Install, Installation, Server, eventually

pytestmark = pytest.mark.slow

SHARED = "RUN cat /proc/sys/kernel/random/uuid > /drawn; sleep 2"


def recipe(folder: Path, *lines: str) -> Path:
    folder.mkdir()
    (folder / "Dockerfile").write_text("\n".join(["FROM base", "ARG NONCE", "ENV NONCE=$NONCE", *lines]))
    (folder / "template.toml").write_text("memory_mb = 256\ndisk_mb = 512\n")
    return folder


@pytest.fixture(scope="module")
def place(install: Install) -> Installation:
    return install("base", PANDASTACK_READY_MACHINES="0", PANDASTACK_BUILDS="2")


@pytest.fixture(scope="module")
def served(place: Installation) -> Iterator[tuple[Server, Client]]:
    with place.serving() as server, Client(server.url, server.token, timeout=120) as client:
        yield server, client


def weights(server: Server) -> list[int]:
    """The CPU weights of the control groups of machines that build."""
    found = []
    for pid in server.building():
        for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if "pandastack-work-" not in path or (controllers and "cpu" not in controllers.split(",")):
                continue
            for mount in (controllers, "cpu", "unified", ""):
                for name in ("cpu.shares", "cpu.weight"):
                    file = Path("/sys/fs/cgroup", mount, path.lstrip("/"), name)
                    found += [int(file.read_text())] if file.exists() else []
    return found


def test_what_two_builds_need_is_made_by_one(served: tuple[Server, Client], tmp_path: Path) -> None:
    server, client = served
    nonce, ends = {"NONCE": str(time.time_ns())}, {"a": "RUN echo a > /own", "b": "RUN echo b > /own"}
    started = {
        name: client.templates.start_build(recipe(tmp_path / f"parallel-{name}", SHARED, line), build_args=nonce)
        for name, line in ends.items()
    }
    third = client.templates.start_build(recipe(tmp_path / "parallel-c", "RUN true"), build_args=nonce)
    both = [each.id for each in started.values()]
    assert eventually(lambda: [client.templates.get_build(each).status for each in both] == ["running"] * 2, 60, "run")
    waiting = client.templates.get_build(third.id)
    assert (waiting.status, waiting.ahead) == ("queued", 0)
    client.templates.cancel_build(third.id)
    logs: dict[str, list[str]] = {name: [] for name in started}

    def follow(name: str) -> None:
        for event in client.templates.events(started[name].id):
            logs[name].append(str(event.data.get("title") or event.data.get("text") or ""))

    threads = [threading.Thread(target=follow, args=[name]) for name in started]
    for each in threads:
        each.start()
    if facts.is_root() and facts.program("nft"):
        found = eventually(lambda: weights(server), 120, "a machine that builds is in its control group")
        assert set(found) <= {25, 256}, found
    for each in threads:
        each.join(400)
    ended = [client.templates.get_build(each.id) for each in started.values()]
    assert [each.status for each in ended] == ["done", "done"], [each.error for each in ended]
    assert sorted(log.count(SHARED) for log in logs.values()) == [0, 2], "one runs it: the step begins, and ends"
    assert any("another build runs this" in line for log in logs.values() for line in log)
    drawn = []
    for name in started:
        with client.sandboxes.create(f"parallel-{name}") as sandbox:
            text = sandbox.exec("cat /drawn /own", check=True).stdout.split()
            assert text[1] == name
            drawn.append(text[0])
    assert drawn[0] == drawn[1]
