"""Hermetic builds in machines: what was built twice is the same, what a build may not see, and a killed server."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from pathlib import Path

import pytest

from pandastack import BuildFailedError, Client
from tests.support.installation import Installation, Server, eventually


@pytest.fixture(scope="module")
def agent(server: Server) -> str:
    """The template with a C compiler."""
    server.installation.build("agent")
    return "agent"


PROGRAM = """#include <stdio.h>
int main(void) { puts("built at " __DATE__ " " __TIME__ " in " __FILE__); return 0; }
"""
MAKEFILE = """OBJECTS := $(patsubst %.c,%.o,$(wildcard *.c))
$(OUT)/hello: $(OBJECTS)
\t$(CC) -o $@ $^
"""


def folder_of(place: Path, **files: str) -> Path:
    """A folder whose files are of different times."""
    place.mkdir()
    for number, (name, text) in enumerate(files.items()):
        (place / name).write_text(text)
        os.utime(place / name, (1_600_000_000 + number, 1_600_000_000 + number))
    return place


def test_a_c_program_is_the_same_in_machines_that_differ(
    server: Server, client: Client, agent: str, tmp_path: Path
) -> None:
    """With times and paths in it, as far as gcc takes them from SOURCE_DATE_EPOCH and the command line."""
    source = folder_of(tmp_path / "src", **{"hello.c": PROGRAM, "Makefile": MAKEFILE, "other.c": "int other;\n"})
    done = server.installation.cli(
        "build", str(source), "--output", str(tmp_path / "out"), "--template", agent, "--verify", "--", "make"
    )
    assert done.returncode == 0, done.stderr
    assert "both builds are the same" in done.stdout
    said = subprocess.run([tmp_path / "out/hello"], capture_output=True, text=True, check=True).stdout
    assert said == "built at Sep 13 2020 12:26:42 in hello.c\n"
    statement = json.loads((tmp_path / "out/provenance.json").read_text())
    dependencies = statement["predicate"]["buildDefinition"]["resolvedDependencies"]
    with server.http() as http:
        version = http.get(f"/templates/{agent}").json()["version"]
    assert dependencies[1]["digest"] == {"pandastackTemplate": version}
    assert subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=tmp_path / "out", capture_output=True).returncode == 0
    assert [each for each in client.sandboxes.list() if "build" in each.metadata] == []


def test_a_python_archive_is_the_same_and_comes_from_below_the_input(client: Client, tmp_path: Path) -> None:
    source = folder_of(tmp_path / "src", **{"__main__.py": "print('hello')\n", "helper.py": "X = 1\n"})
    # Times in a ZIP archive are local ones.
    command = "mkdir app dist && cp -p *.py app && TZ=UTC python3 -m zipapp app -o dist/app.pyz"
    build = client.builds.run(source, command, tmp_path / "out", artifacts=["dist"], verify=True)
    assert (build.status, build.reproducible) == ("done", True)
    ran = subprocess.run(["python3", tmp_path / "out/dist/app.pyz"], capture_output=True, text=True, check=True)
    assert ran.stdout == "hello\n"


SURROUNDINGS = """{
  date -u +%Y-%m-%dT%H:%M; hostname; pwd; umask; nproc; id -un; echo "$LC_ALL $TZ $OUT $CHOSEN $LEAKED"
  ls -l --time-style=+%s | sed 1d | cut -d' ' -f6 | sort -u
  ls /sys/class/net; getent hosts example.org || echo no names
  python3 -c 'import socket; socket.create_connection(("10.0.2.2", 80), 3)' 2>/dev/null || echo no network
} > $OUT/seen"""


def test_a_command_sees_what_is_pinned_and_no_network(client: Client, tmp_path: Path) -> None:
    source = folder_of(tmp_path / "src", a="1", b="2")
    client.builds.run(source, SURROUNDINGS, tmp_path / "out", env={"CHOSEN": "yes"}, cpu=2)
    seen = (tmp_path / "out/seen").read_text().splitlines()
    assert seen[:8] == [
        "2020-09-13T12:26",
        "build",
        "/build/src",
        "0022",
        "2",
        "root",
        "C.UTF-8 UTC /build/out yes ",
        "1600000001",
    ]
    assert seen[-2:] == ["no names", "no network"]


@pytest.mark.parametrize(
    ("command", "path"),
    [
        ("date +%s > $OUT/time", "time"),
        ("head -c 8 /dev/urandom > $OUT/random; echo same > $OUT/same", "random"),
        ("hostname > $OUT/name", "name"),
        ("mkdir app && cp -p a app/__main__.py && python3 -m zipapp app -o $OUT/app.pyz", "app.pyz"),  # the time zone
    ],
)
def test_what_is_not_reproducible_is_caught(server: Server, tmp_path: Path, command: str, path: str) -> None:
    source = folder_of(tmp_path / "src", a="1")
    done = server.installation.cli("build", str(source), "-o", str(tmp_path / "out"), "--verify", "--", command)
    assert done.returncode == 3, done.stderr
    assert f"{path}: differs from byte" in done.stderr
    assert "same: " not in done.stderr
    assert (tmp_path / "out" / path).exists()


def test_a_failed_command_has_its_status_and_the_end_of_its_log(client: Client, tmp_path: Path) -> None:
    source = folder_of(tmp_path / "src", a="1")
    with pytest.raises(BuildFailedError, match="exit code 9") as failed:
        client.builds.run(source, "echo last words; exit 9", tmp_path / "out")
    assert failed.value.build.log_tail == "last words\n"  # type: ignore[attr-defined]
    with pytest.raises(BuildFailedError, match="longer than 1 s"):
        client.builds.run(source, "sleep 600", tmp_path / "out", timeout_seconds=1)
    with pytest.raises(BuildFailedError, match="did not make dist"):
        client.builds.run(source, "true", tmp_path / "out", artifacts=["dist"])


def test_after_a_killed_server_a_build_is_interrupted_and_nothing_of_it_is_left(
    place: Installation, tmp_path: Path
) -> None:
    source, begun = folder_of(tmp_path / "src", a="1"), threading.Event()
    with place.serving() as server, Client(server.url, server.token) as client:
        started = client.builds.start(source, "echo begun; sleep 3600")

        def follow() -> None:
            try:
                for _ in client.builds.logs(started.id):
                    begun.set()
            except Exception:  # the server is killed
                return

        reader = threading.Thread(target=follow)
        reader.start()
        assert begun.wait(120)
        server.kill()
        reader.join(60)
    with place.serving() as server, Client(server.url, server.token) as client:
        found = client.builds.get(started.id)
        assert (found.status, found.reason) == ("failed", "interrupted")
        assert client.sandboxes.list() == []
        assert "".join(client.builds.logs(started.id)) == "begun\n"
    eventually(lambda: not place.left_behind(), 30, "nothing is left on the host")
