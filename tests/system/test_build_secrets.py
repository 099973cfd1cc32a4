"""Secrets of builds: there for the RUN that asks for them, and nowhere else afterwards."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from pandastack import Client
from pandastack.errors import BadRequestError, TemplateBuildError
from pandastack.host.files import data_ranges
from tests.support.installation import Server

TOKEN = "tok-3f9a86c2d1e04b57"
KEY = "-----BEGIN KEY-----\nbGluZSBvbmUgb2YgdGhlIGtleQ\n-----END KEY-----\n"
STORED = "of-the-workspace-71c0d4"

DOCKERFILE = """\
FROM base
ARG VERSION=none
ENV VERSION=$VERSION
RUN --mount=type=secret,id=token,required --mount=type=secret,id=key,target=/root/.ssh/id,mode=0440,uid=1 \\
    --mount=type=secret,id=stored,env=STORED --mount=type=secret,id=missing --mount=type=tmpfs,target=/scratch \\
    set -e; cat /run/secrets/token /root/.ssh/id; echo "+ $STORED"; stat -c '%a %u %n' /run/secrets/* /root/.ssh/id; \\
    cp /root/.ssh/id /scratch/copy; wc -c < /run/secrets/token > /made; echo "VERSION=$VERSION" >> /made; \\
    sleep 3600 & echo $! > /pid
RUN --mount=type=secret,id=missing ls -d /run/secrets /scratch /root/.ssh >> /made 2>&1 || true; \\
    kill -0 "$(cat /pid)" 2>/dev/null || echo ended >> /made; env | grep -c STORED= >> /made || true
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("build") / "secrets-test"
    folder.mkdir()
    (folder / "Dockerfile").write_text(DOCKERFILE)
    (folder / "template.toml").write_text("memory_mb = 256\ndisk_mb = 512\n")
    return folder


def holding(values: Sequence[str], since: float, *places: Path) -> list[str]:
    """The files below ``places`` that were written since then and have one of ``values`` in them, holes left out."""
    pattern, found = re.compile(b"|".join(re.escape(each.encode()) for each in values)), []
    for path in (each for place in places for each in (place, *place.rglob("*")) if each.is_file()):
        status = path.lstat()
        if status.st_mtime < since:
            continue
        with path.open("rb") as file:
            for start, end in data_ranges(file.fileno(), status.st_size):
                file.seek(start)
                if pattern.search(file.read(end - start)):
                    found.append(str(path))
    return found


def test_a_value_is_in_no_layer_image_log_or_record(server: Server, client: Client, folder: Path) -> None:
    with pytest.raises(TemplateBuildError, match="line 4: the build has no secret token"):
        client.templates.build(folder)
    began = time.time()
    client.secrets.create("BUILD_STORED", STORED)
    printed: list[str] = []
    build = client.templates.build(
        folder,
        no_cache=True,
        build_args={"VERSION": "7"},
        secrets={"token": TOKEN, "key": KEY.encode()},
        stored_secrets={"stored": "BUILD_STORED"},
        on_event=lambda event: printed.append(str(event.data)),
    )
    client.secrets.delete("BUILD_STORED")
    log = "\n".join(printed)
    assert "'+ ****'" in log and "400 0 /run/secrets/token" in log and "440 1 /root/.ssh/id" in log
    assert not any(part in log for part in (TOKEN, "bGluZSBvbmU", STORED))
    with client.sandboxes.create("secrets-test") as sandbox:
        made = sandbox.exec("cat /made; echo $VERSION; ls -A /root", check=True).stdout.splitlines()
    assert made[:2] == [str(len(TOKEN)), "VERSION=7"] and made[-1] != ".ssh"
    missing = [f"ls: cannot access '{each}': No such file or directory" for each in ("/scratch", "/root/.ssh")]
    assert all(each in made for each in missing) and {"ended", "0", "7"} <= set(made)
    layout, baked = server.installation.layout, server.installation.layout.cache / "baked" / str(build.version)
    assert (layout.engine / "pool/snapshots" / str(build.version)).is_dir(), "a clone of what is baked"
    caches = [layout.cache / name for name in ("layers", "images", "renewed", "work", "initramfs")]
    records = [each for each in (*layout.data.iterdir(), *layout.engine.iterdir()) if each != layout.engine]
    records = [each for each in records if not each.name.startswith("pool")]
    assert holding([TOKEN, "bGluZSBvbmU", STORED], began - 1, baked, *caches, *records) == []
    assert holding(["secrets-test"], began - 1, *records) != [], "the search finds what is there"
    assert holding(["VERSION=7"], began - 1, baked) != []


def test_a_value_that_a_run_writes_to_the_disk_fails_the_build(client: Client, folder: Path, tmp_path: Path) -> None:
    """Be it in a file that is deleted again: its blocks would be in the layer."""
    leaking = tmp_path / "leaking-test"
    leaking.mkdir()
    (leaking / "Dockerfile").write_text(
        "FROM base\nRUN --mount=type=secret,id=token cat /run/secrets/token > /leak; sync; rm /leak; "
        "echo kept > /kept; cp /run/secrets/token /etc/token\n"
    )
    (leaking / "template.toml").write_text("memory_mb = 256\ndisk_mb = 512\n")
    with pytest.raises(TemplateBuildError, match="has written the secret token to the disk") as failed:
        client.templates.build(leaking, secrets={"token": TOKEN})
    assert TOKEN not in str(failed.value)
    assert "leaking-test" not in [each.name for each in client.templates.list()]


def test_what_no_build_takes_is_refused_at_once(client: Client, folder: Path) -> None:
    with pytest.raises(BadRequestError) as refused:
        client.templates.start_build(folder, build_args={"UNKNOWN": "1"})
    assert refused.value.field == "build_args"
    with pytest.raises(BadRequestError) as refused:
        client.templates.start_build(folder, secrets={"token": b"x" * 600_000})
    assert refused.value.field == "secrets.token"
