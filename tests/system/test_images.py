"""Images of registries as templates: fetched, unpacked in machines, built upon."""

from __future__ import annotations

import io
import json
import tarfile
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from pandastack import Client
from tests.support import oci_images
from tests.support.installation import Install, Server, eventually
from tests.support.oci_images import BUSYBOX, busybox, folder, layer, link, member, sparse
from tests.support.registry import Registry, open_registry

pytestmark = pytest.mark.root

APPLETS = (
    "sh",
    "cat",
    "echo",
    "ls",
    "id",
    "readlink",
    "stat",
    "env",
    "mkdir",
    "sleep",
    "uname",
    "cp",
    "printf",
    "grep",
)
CONFIG = {
    "Env": ["PATH=/bin", "FROM_IMAGE=yes"],
    "Cmd": ["sh"],
    "User": "app",
    "WorkingDir": "/srv",
    "Labels": {"who": "test"},
}
PASSWORD = "pass word"

HOSTILE = layer(
    member("/absolute", b"1"),
    member("../../climbing", b"2"),
    member("etc/../../../etc/inside", b"3"),
    member("dev/vda", type=tarfile.BLKTYPE, devmajor=254, devminor=0),
    member("disk", type=tarfile.BLKTYPE, devmajor=254, devminor=0),
    member("su", b"4", mode=0o4755),
    link("out", "/outside"),
    member("out/through-a-link", b"5"),
    link("up", "../../../../srv"),
    member("up/through-dots", b"6"),
    folder("gone"),
    member("gone/.wh..wh..opq"),
    member(".wh.not-there"),
)
"""Nothing of it may be anywhere but in the image, and what is left of it is an image like any other."""


BROKEN: dict[str, tuple[list[bytes], dict[str, Any]]] = {
    "bomb": ([sparse("zeros", 1 << 32)], {}),
    "no-archive": ([b"no archive"], {}),
    "cut": ([layer(member("a", b"x" * 5000))[:2000]], {}),
    "another-layer": ([layer(member("a"))], {"diff_ids": ["sha256:" + "0" * 64]}),
    "proc": ([layer(link("proc", "/etc"))], {}),
    "hard-link": ([layer(link("shadow", "../../../etc/shadow", hard=True))], {}),
    "root-file": ([layer(member(".", b"x"))], {}),
    "odd": ([layer(member("x", type=b"Z"))], {}),
}
"""Images that cannot be unpacked: their layers, and what else is special about them."""


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> oci_images.Layout:
    if not BUSYBOX.exists():
        pytest.skip("this host has no busybox-static")
    made = oci_images.Layout(tmp_path_factory.mktemp("layout"))
    made.image("busybox", [busybox(*APPLETS)], CONFIG)
    made.image("hostile", [busybox(*APPLETS), layer(folder("gone"), member("gone/file", b"x")), HOSTILE], CONFIG)
    for name, (layers, values) in BROKEN.items():
        made.image(name, layers, **values)
    made.image("shell-less", [layer(folder("app"), member("app/run", b"data"))])
    return made


@pytest.fixture(scope="module")
def registry(layout: oci_images.Layout, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with open_registry(tmp_path_factory.mktemp("registry"), number=2) as made:
        for tag in ("busybox", "shell-less", *BROKEN):
            made.push(layout, tag, f"test/{tag}:1")
        yield made


@pytest.fixture(scope="module")
def closed(layout: oci_images.Layout, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with open_registry(tmp_path_factory.mktemp("closed"), user="me", password=PASSWORD, number=3) as made:
        made.push(layout, "hostile", "private/hostile:1")
        yield made


class Endless(BaseHTTPRequestHandler):
    """A registry whose layer never ends."""

    manifests: dict[str, bytes]
    config: bytes

    def do_GET(self) -> None:
        name = self.path.rpartition("/")[2]
        body = self.manifests.get(name, self.config if "/blobs/" in self.path else b"{}")
        endless = "/blobs/" in self.path and name not in self.manifests and not self.path.endswith(self.of_config)
        self.send_response(200)
        self.send_header("Content-Type", oci_images.MANIFEST if "/manifests/" in self.path else "application/json")
        self.send_header("Content-Length", str(10_000_000 if endless else len(body)))
        self.end_headers()
        try:
            self.wfile.write(b"" if endless else body)
            while endless:
                self.wfile.write(b"\0")
                time.sleep(0.05)
        except OSError:
            pass

    of_config = ""

    def log_message(self, *args: Any) -> None: ...


@pytest.fixture(scope="module")
def endless(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    made = oci_images.Layout(tmp_path_factory.mktemp("endless"))
    entry = made.image("one", [layer(member("a", bytes(10_000_000)))])
    blobs = made.place / "blobs" / "sha256"
    manifest = json.loads((blobs / entry["digest"][7:]).read_bytes())
    manifest["layers"][0]["size"] = 10_000_000
    data = json.dumps(manifest).encode()
    digest = made.blob(data)["digest"]
    config = manifest["config"]["digest"]
    values = {
        "manifests": {"1": data, digest: data},
        "config": (blobs / config[7:]).read_bytes(),
        "of_config": config,
    }
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Endless,), values))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with server:
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.fixture(scope="module")
def server(install: Install, registry: Registry, closed: Registry, endless: str) -> Iterator[Server]:
    allowed = f"{registry.host},{closed.host},{endless}"
    settings = {"PANDASTACK_REGISTRIES": allowed, "PANDASTACK_READY_MACHINES": "0"}
    with install(**settings).serving() as server:
        yield server


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[Client]:
    with Client(server.url, server.token, timeout=120) as client:
        yield client


def begun(http: httpx.Client, name: str, image: str, **form: str) -> str:
    answer = http.post("/templates/build", data={"name": name, "image_ref": image, "replace": "true", **form})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def ended(http: httpx.Client, build: str) -> dict[str, Any]:
    def record() -> dict[str, Any] | None:
        found: dict[str, Any] = http.get(f"/templates/builds/{build}").json()
        return found if found["status"] in ("done", "failed") else None

    found: dict[str, Any] = eventually(record, 500, "the build ends")
    return found


def built(http: httpx.Client, name: str, image: str, **form: str) -> dict[str, Any]:
    return ended(http, begun(http, name, image, **{"memory_mb": "256", "size_mb": "512", **form}))


def test_a_private_image_needs_the_workspaces_own_credentials_at_each_build(
    server: Server, client: Client, closed: Registry
) -> None:
    """A hostile one, whose files are where an honest tool puts them: in the image."""
    image = f"{closed.host}/private/hostile:1"
    with server.http() as http:
        assert "the workspace has none (401" in built(http, "hostile", image)["error"]
        client.registries.put(closed.host, "me", "wrong word")
        assert "refuses the workspace's credentials (401" in built(http, "hostile", image)["error"]
        client.registries.put(closed.host, "me", PASSWORD)
        done = built(http, "hostile", image)
        assert done["status"] == "done", done["error"]
        log = http.get(f"/templates/builds/{done['id']}/logs").text
        assert PASSWORD not in log and "wrong" not in log
        client.registries.delete(closed.host)
        assert "the workspace has none" in built(http, "hostile", image)["error"], "though all of it is in the cache"
        assert "@sha256:" in http.get("/templates/hostile").json()["base"]
    with client.sandboxes.create("hostile") as sandbox:
        script = (
            "cat /absolute /climbing /etc/inside /outside/through-a-link /srv/through-dots 2>&1; echo;"
            "readlink /out; readlink /up; stat -c %a /su; ls /gone; ls -l /disk; echo $FROM_IMAGE; id -u app; uname"
        )
        lines = sandbox.exec(script, check=True).stdout.splitlines()
    assert lines[:4] == ["12356", "/outside", "../../../../srv", "4755"]
    assert lines[4].startswith("b") and lines[5:] == ["yes", "1234", "Linux"]


DOCKERFILE = """\
FROM {registry}/test/shell-less:1 AS data
FROM {registry}/test/busybox:1 AS made
USER root
RUN echo made > /made && mkdir -p /deep/er && echo $FROM_IMAGE > /deep/er/file
FROM {registry}/test/busybox:1
USER root
COPY --chown=app hello /dir/hello
ADD archive /unpacked/
COPY --from=data /app /app
COPY --from=made --chown=app:app /made /deep /copied/
COPY --from={registry}/test/shell-less:1 /app/run /taken
RUN stat -c %U /dir/hello /copied/made > /owners && id -u >> /owners
LABEL more=yes
"""


def test_a_dockerfile_is_built_on_images_without_bash_and_tar(
    client: Client, registry: Registry, tmp_path: Path
) -> None:
    """One of them has nothing but a file."""
    recipe = tmp_path / "on-busybox"
    recipe.mkdir()
    (recipe / "Dockerfile").write_text(DOCKERFILE.format(registry=registry.host))
    (recipe / "template.toml").write_text("memory_mb = 256\ndisk_mb = 512\n")
    (recipe / "hello").write_text("hello\n")
    with tarfile.open(recipe / "archive", "w:gz") as tar:
        inside = tarfile.TarInfo("inside")
        inside.size, inside.mode = 9, 0o751
        tar.addfile(inside, io.BytesIO(b"unpacked\n"))
    client.templates.build(recipe)
    with client.sandboxes.create("on-busybox") as sandbox:
        script = "cat /dir/hello /unpacked/inside /app/run; echo; cat /copied/made /copied/er/file /owners /taken"
        assert sandbox.exec(script, check=True).stdout.split() == [
            *("hello", "unpacked", "data", "made", "yes", "app", "app", "0", "data"),
        ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("bomb", "does not fit on a disk of 256 MiB"),
        ("no-archive", "a layer ends too early"),
        ("cut", "a layer ends too early"),
        ("another-layer", "a layer is not what the configuration says"),
        ("proc", "machines cannot boot from it"),
        ("hard-link", "a layer cannot be unpacked"),
        ("root-file", "a layer cannot be unpacked"),
        ("odd", "a layer cannot be unpacked"),
    ],
)
def test_a_layer_that_cannot_be_unpacked_says_why(server: Server, registry: Registry, name: str, message: str) -> None:
    with server.http() as http:
        error = built(http, "broken", f"{registry.host}/test/{name}:1", size_mb="256")["error"]
    assert message in error and f"test/{name}:1" in error
    work = server.installation.layout.cache / "work"
    assert not [each.name for each in work.iterdir() if f"-{server.process.pid}." in each.name]


def test_an_image_without_a_shell_says_so(server: Server, registry: Registry) -> None:
    with server.http() as http:
        assert "no /bin/sh" in built(http, "bare", f"{registry.host}/test/shell-less:1")["error"]


def test_a_cancelled_fetch_ends_at_once(server: Server, endless: str) -> None:
    layout = server.installation.layout
    with server.http() as http:
        build = begun(http, "endless", f"{endless}/x:1")
        eventually(lambda: fetching(layout.fetch_uid), 60, "skopeo runs")
        eventually(lambda: "layer 1 of 1" in http.get(f"/templates/builds/{build}/logs").text, 60, "it fetches")
        http.post(f"/templates/builds/{build}/cancel")
        assert ended(http, build)["error"] == "the build was cancelled"
        http.get(f"/templates/builds/{build}/events", params={"follow": "1"})
    assert fetching(layout.fetch_uid) == []


def fetching(uid: int) -> list[str]:
    """The programs that run as the user of fetches."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if process.stat().st_uid == uid:
                found.append((process / "comm").read_text())
        except OSError:
            continue
    return found
