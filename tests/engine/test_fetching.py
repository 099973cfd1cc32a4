"""Images of a real registry on loopback, fetched by a real skopeo in its namespace."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from pandastack.engine.build.door import Policy
from pandastack.engine.build.fetching import Registries, Skopeo
from pandastack.engine.build.oci import Importer
from pandastack.errors import BuildError
from pandastack.host.processes.run import run
from pandastack.images.oci.layout import Layout
from pandastack.images.oci.resolved import ResolvedImage
from pandastack.model.image_reference import parse_reference
from pandastack.model.network import FORBIDDEN
from pandastack.model.registries import RegistryCredential, parse_allowed
from tests.support import oci_images
from tests.support.oci_images import MANIFEST, layer, member
from tests.support.registry import Registry, open_registry

pytestmark = [pytest.mark.anyio, pytest.mark.root]

HERE = "linux/amd64"
UID = 0x7FFF_0001
PASSWORD = 'p"w:ü and more'


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> oci_images.Layout:
    made = oci_images.Layout(tmp_path_factory.mktemp("layout"))
    image = made.image("one", [layer(member("a", b"1")), layer(member("b", os.urandom(200_000)))], {"Env": ["A=1"]})
    other = made.image("arm", [layer(member("a"))], architecture="arm64")
    made.index("both", {"linux/arm64": other, HERE: image})
    made.index("elsewhere", {"linux/arm64": other})
    return made


@pytest.fixture(scope="module")
def registry(layout: oci_images.Layout, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with open_registry(tmp_path_factory.mktemp("registry")) as made:
        for tag in ("one", "both", "elsewhere", "arm"):
            made.push(layout, tag, f"test/x:{tag}")
        yield made


@pytest.fixture(scope="module")
def closed(layout: oci_images.Layout, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with open_registry(tmp_path_factory.mktemp("closed"), user="me", password=PASSWORD, number=1) as made:
        made.push(layout, "one", "private:1")
        yield made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "own").mkdir()
    return tmp_path / "own"


def skopeo(
    folder: Path, reference: str, allowed: str, *credentials: RegistryCredential, trusted: bool = False
) -> Skopeo:
    registries = Registries(Policy(parse_allowed(allowed), FORBIDDEN), credentials, trusted)
    return Skopeo(registries, parse_reference(reference), folder, UID)


async def resolve(folder: Path, registry: Registry, name: str, *credentials: RegistryCredential) -> ResolvedImage:
    return await skopeo(folder, f"{registry.host}/{name}", registry.host, *credentials).resolve(HERE)


async def test_a_tag_means_a_digest_and_an_index_this_platform(
    folder: Path, registry: Registry, layout: oci_images.Layout
) -> None:
    one, index = layout.entries[0]["digest"], layout.entries[2]["digest"]
    image = await resolve(folder, registry, "test/x:one")
    assert image.digest == image.descriptor.digest == one and image.config.env["A"] == "1"
    both = await resolve(folder, registry, "test/x:both")
    assert (both.digest, both.descriptor.digest) == (index, one)
    exact = await resolve(folder, registry, f"test/x@{index}")
    assert exact.digest == index and exact.layout_key == both.layout_key == image.layout_key
    assert both.text == f"{registry.host}/test/x:both@{index}"


async def test_the_same_manifest_elsewhere_has_other_keys(folder: Path, registry: Registry, closed: Registry) -> None:
    credential = RegistryCredential(closed.host, "me", PASSWORD)
    here, there = await resolve(folder, registry, "test/x:one"), await resolve(folder, closed, "private:1", credential)
    assert here.descriptor.digest == there.descriptor.digest
    assert here.layout_key != there.layout_key and here.disk_key(512) != there.disk_key(512)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("test/x@sha256:" + "0" * 64, "has no such image"),
        ("test/x:none", "has no such image"),
        ("nothing", "has no such image"),
        ("test/x:elsewhere", "no image for linux/amd64"),
        ("test/x:arm", "is for linux/arm64, and machines here are linux/amd64"),
    ],
)
async def test_what_is_not_there_is_said(folder: Path, registry: Registry, name: str, message: str) -> None:
    with pytest.raises(BuildError, match=message) as failed:
        await resolve(folder, registry, name)
    assert failed.value.message.startswith(f"FROM {registry.host}/") and failed.value.hint


async def test_credentials_are_asked_for_and_checked(folder: Path, closed: Registry) -> None:
    with pytest.raises(BuildError, match=r"the workspace has none \(401") as failed:
        await resolve(folder, closed, "private:1")
    assert failed.value.hint == f"`pandastack registry login {closed.host}` stores them"
    with pytest.raises(BuildError, match="refuses the workspace's credentials") as failed:
        await resolve(folder, closed, "private:1", RegistryCredential(closed.host, "me", "wrong-word"))
    assert "wrong-word" not in str(failed.value)
    with pytest.raises(BuildError, match="the workspace has none"):
        await resolve(folder, closed, "private:1", RegistryCredential("elsewhere.example", "me", PASSWORD))
    assert (await resolve(folder, closed, "private:1", RegistryCredential(closed.host, "me", PASSWORD))).digest


async def test_an_image_is_fetched_and_leaves_no_password(folder: Path, closed: Registry) -> None:
    client = skopeo(folder, f"{closed.host}/private:1", closed.host, RegistryCredential(closed.host, "me", PASSWORD))
    image = await client.resolve(HERE)
    reports, lines = list[tuple[int, int]](), list[str]()
    made = await client.copy(
        client.reference.at(image.descriptor.digest),
        image.manifest.size,
        recompress=False,
        report=lambda done, total: reports.append((done, total)),
        line=lines.append,
    )
    _, manifest = Layout(made, "x").find("image", HERE)
    assert manifest.layers == image.manifest.layers
    assert reports[-1][1] == image.manifest.size and max(reports)[0] > 200_000
    assert sum("blob" in each for each in lines) == 2
    left = b"".join(each.read_bytes() for each in folder.rglob("*") if each.is_file())
    assert PASSWORD.encode() not in left and b'"auth"' not in left


async def test_layers_that_are_not_gzip_become_it(
    folder: Path, registry: Registry, layout: oci_images.Layout, tmp_path: Path
) -> None:
    """umoci knows no zstd."""
    source, target = f"oci:{layout.place}:one", f"oci:{tmp_path}/zstd:one"
    await run(["skopeo", "--insecure-policy", "copy", "--dest-compress-format=zstd", source, target], timeout=60)
    registry.push(oci_images.Layout(tmp_path / "zstd"), "one", "test/zstd:1")
    client = skopeo(folder, f"{registry.host}/test/zstd:1", registry.host)
    image = await client.resolve(HERE)
    assert all(each.media_type.endswith("zstd") for each in image.manifest.layers)
    made = await client.copy(
        client.reference.at(image.descriptor.digest),
        image.manifest.size,
        recompress=True,
        report=lambda done, total: None,
        line=lambda text: None,
    )
    _, manifest = Layout(made, "x").find("image", HERE)
    assert all(each.media_type.endswith("gzip") for each in manifest.layers)


async def test_a_registry_of_this_host_has_to_be_allowed(folder: Path, registry: Registry) -> None:
    for host in (registry.host, registry.host.replace("127.0.0.1", "localhost")):
        with pytest.raises(BuildError, match="is the server itself") as failed:
            await skopeo(folder, f"{host}/test/x:one", "").resolve(HERE)
        assert "PANDASTACK_REGISTRIES" in (failed.value.hint or "")
        with pytest.raises(BuildError, match="is the server itself"):
            await skopeo(folder, f"{host}/test/x:one", "registry.lan:5000").resolve(HERE)


async def test_the_operator_needs_no_permission(folder: Path, registry: Registry) -> None:
    assert (await skopeo(folder, f"{registry.host}/test/x:one", "", trusted=True).resolve(HERE)).digest


@pytest.mark.parametrize("host", ["10.1.2.3", "169.254.169.254", "192.168.0.1:5000"])
async def test_other_private_addresses_are_refused(folder: Path, host: str) -> None:
    with pytest.raises(BuildError, match="not on the public internet"):
        await skopeo(folder, f"{host}/x:1", "").resolve(HERE)


class Hostile(BaseHTTPRequestHandler):
    """A registry that sends what ``answers`` has for a path, and everything else elsewhere."""

    answers: dict[str, tuple[str, bytes]]
    elsewhere = ""

    def do_GET(self) -> None:
        if self.path == "/v2/":
            self._send(200, "application/json", b"{}")
        elif self.path in self.answers:
            self._send(200, *self.answers[self.path])
        elif self.elsewhere:
            self.send_response(307)
            self.send_header("Location", self.elsewhere)
            self.send_header("Content-Length", "0")
            self.end_headers()
        else:
            self._send(404, "application/json", b"{}")

    def _send(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with suppress(OSError):
            self.wfile.write(body)

    def log_message(self, *args: Any) -> None: ...


@contextmanager
def hostile(answers: dict[str, tuple[str, bytes]], elsewhere: str = "") -> Iterator[str]:
    handler = type("Handler", (Hostile,), {"answers": answers, "elsewhere": elsewhere})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with server:
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def answers_of(layout: oci_images.Layout, **changed: bytes) -> dict[str, tuple[str, bytes]]:
    """What an honest registry answers for the image ``one``, but for the blobs in ``changed``."""
    entry = layout.entries[0]["digest"]
    blobs = layout.place / "blobs" / "sha256"
    data = (blobs / entry.removeprefix("sha256:")).read_bytes()
    manifest = json.loads(data)
    found = {f"/v2/x/manifests/{name}": (MANIFEST, data) for name in ("1", entry)}
    for name, each in (("config", manifest["config"]), ("layer", manifest["layers"][1])):
        digest = each["digest"]
        body = changed.get(name, (blobs / digest.removeprefix("sha256:")).read_bytes())
        found[f"/v2/x/blobs/{digest}"] = ("application/octet-stream", body)
    return found


async def test_a_redirect_leads_nowhere_that_is_not_allowed(folder: Path, layout: oci_images.Layout) -> None:
    """Not to a service of this host, and not to one of its network."""
    with socket.create_server(("127.0.0.1", 0)) as secret:
        secret.settimeout(0.2)
        for target in (
            f"http://127.0.0.1:{secret.getsockname()[1]}/",
            "http://169.254.169.254/latest",
            "https://10.0.0.1/",
        ):
            with hostile({}, target) as host, pytest.raises(BuildError):
                await skopeo(folder, f"{host}/x:1", host).resolve(HERE)
        with pytest.raises(TimeoutError):
            secret.accept()


async def test_a_registry_that_lies_is_found_out(folder: Path, layout: oci_images.Layout) -> None:
    wrong = "sha256:" + "1" * 64
    honest = answers_of(layout)
    lies = {**honest, f"/v2/x/manifests/{wrong}": honest["/v2/x/manifests/1"]}
    with hostile(lies) as host:
        assert (await skopeo(folder, f"{host}/x:1", host).resolve(HERE)).digest == layout.entries[0]["digest"]
        with pytest.raises(BuildError):
            await skopeo(folder, f"{host}/x@{wrong}", host).resolve(HERE)
    other = answers_of(layout, config=b'{"os":"linux","architecture":"amd64"}')
    with hostile(other) as host, pytest.raises(BuildError):
        await skopeo(folder, f"{host}/x:1", host).resolve(HERE)


async def test_a_registry_that_sends_without_end_is_stopped(folder: Path, layout: oci_images.Layout) -> None:
    endless = answers_of(layout, layer=b"\0" * 80_000_000)
    with hostile(endless) as host:
        client = skopeo(folder, f"{host}/x:1", host)
        image = await client.resolve(HERE)
        with pytest.raises(BuildError):
            await client.copy(
                client.reference.at(image.descriptor.digest),
                image.manifest.size,
                recompress=False,
                report=lambda done, total: None,
                line=lambda text: None,
            )
    assert sum(each.stat().st_size for each in folder.rglob("*") if each.is_file()) < 50_000_000
    with hostile({"/v2/x/manifests/1": (MANIFEST, b" " * 40_000_000)}) as host, pytest.raises(BuildError):
        await skopeo(folder, f"{host}/x:1", host).resolve(HERE)


def test_an_importer_does_not_show_credentials() -> None:
    assert "word" not in repr(Registries(Policy((), ()), [RegistryCredential("r.example", "me", "word")]))
    assert Importer.__dataclass_fields__["credentials"].repr is False
