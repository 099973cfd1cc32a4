"""A template whose last step changed: made from started kernels, without anything of the step that was replaced."""

from __future__ import annotations

import shutil
import uuid
from dataclasses import replace
from pathlib import Path

from pandastack import Client
from pandastack.host.files import data_ranges
from pandastack.images.cache import Cache
from tests.support.installation import Install, serving


def recipe(folder: Path, last: str) -> Path:
    folder.mkdir(exist_ok=True)
    lines = ["FROM base", "RUN echo first > /first", f"RUN {last}"]
    (folder / "Dockerfile").write_text("\n".join(lines) + "\n")
    (folder / "template.toml").write_text("memory_mb = 256\ndisk_mb = 512\n")
    return folder


def contains(path: Path, value: bytes) -> bool:
    with path.open("rb") as file:
        for start, end in data_ranges(file.fileno(), path.stat().st_size):
            file.seek(start)
            if value in file.read(end - start):
                return True
    return False


def found_by(client: Client, template: str) -> list[str]:
    """What a sandbox of the template finds, and two things that each sandbox has of its own."""
    with client.sandboxes.create(template) as sandbox:
        said = sandbox.exec("cat /first /made*; cat /proc/sys/kernel/random/boot_id /etc/machine-id", check=True).stdout
        return said.splitlines()


def test_a_changed_last_step_replaces_the_former_one(client: Client, tmp_path: Path) -> None:
    former, token = uuid.uuid4().hex, uuid.uuid4().hex
    folder = tmp_path / "last-step-test"
    client.templates.build(recipe(folder, f"echo {former} > /made-before; echo {former} > /dev/shm/left; sleep 3600 &"))
    assert found_by(client, "last-step-test")[:2] == ["first", former]

    last = f"--mount=type=secret,id=token cat /run/secrets/token | wc -c > /made; echo {former[::-1]} >> /made"
    events: list[str] = []
    build = client.templates.build(
        recipe(folder, last),
        secrets={"token": token},
        on_event=lambda event: events.append(str(event.data.get("title") or event.data.get("text"))),
    )
    assert build.status == "done"
    assert not [each for each in events if each.startswith(("RUN echo first", "starting the kernel"))]
    one, other = found_by(client, "last-step-test"), found_by(client, "last-step-test")
    assert one[:3] == other[:3] == ["first", "32", former[::-1]]
    assert len(one) == 5 and set(one[3:]).isdisjoint(other[3:])
    with client.sandboxes.create("last-step-test") as sandbox:
        left = sandbox.exec(f"ls /made-before /dev/shm /run/secrets; grep -rl {former} /tmp /run /root; pgrep sleep")
        assert left.stdout.split() == ["/dev/shm:"]


def test_no_memory_that_is_kept_has_a_secret(install: Install, tmp_path: Path) -> None:
    """Also a build that was killed while it kept a kernel leaves nothing that the next one would take for whole."""
    place, token = install(PANDASTACK_READY_MACHINES="0"), uuid.uuid4().hex
    file = tmp_path / "token"
    file.write_text(token)
    folder = recipe(
        tmp_path / "kept-test", f"--mount=type=secret,id=token wc -c /run/secrets/token > /made-{token[:8]}"
    )
    build = ("template", "build", str(folder), "--secret", f"id=token,src={file}")
    cache = Cache(place.layout.cache)
    shutil.rmtree(cache.root / "started", ignore_errors=True)
    killed = replace(place, settings={"PANDASTACK_CRASH_AT": "started"})
    assert killed.cli(*build, timeout=300).returncode == -9
    assert list((cache.root / "started").glob(".*.making")) and not list((cache.root / "started").glob("[!.]*"))

    assert place.cli(*build, timeout=300).returncode == 0
    assert not list((cache.root / "started").glob(".*.making"))
    kernels = list((cache.root / "started").glob("[!.]*"))
    assert len(kernels) == 2  # that of machines that build, and that of the template
    assert not list((cache.root / "work").glob("pandastack-work-*"))
    with serving(place) as (_, client):
        (snapshot,) = (place.layout.engine / "pool" / "snapshots").glob("[!.]*")
        for path in (each for directory in (*kernels, snapshot) for each in directory.iterdir()):
            assert not contains(path, token.encode()), path
        with client.sandboxes.create("kept-test") as sandbox:
            assert sandbox.exec("cat /made-*", check=True).stdout == "32 /run/secrets/token\n"
    assert place.left_behind() == []
