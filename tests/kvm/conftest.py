"""A host in a box: a sandbox whose emulated CPU has AMD-V, and in it this project with what it has built already."""

from __future__ import annotations

import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from pandastack import Client, Sandbox, config
from pandastack.images.apt import host_sources, render
from pandastack.images.cache import Cache
from tests.kvm import packing
from tests.support.installation import Install

HERE = Path(__file__).parent
collect_ignore = ["inside"]  # those run in the box

_PREPARE = """
set -eu
cd /box && mv box.tar .. && tar -xf ../box.tar modules
for module in $(cat modules/order); do insmod modules/$module.ko 2>/dev/null || grep -q "^$module " /proc/modules; done
truncate -s 12G /box.xfs && mkfs.xfs -q /box.xfs && mount -o loop /box.xfs /box
cd /box && tar -xf ../box.tar && rm ../box.tar && mkdir tmp
rm -rf /etc/apt/sources.list /etc/apt/sources.list.d/* && cp apt.sources /etc/apt/sources.list.d/debian.sources
mount -t tmpfs none /run/netns 2>/dev/null || true
test -c /dev/kvm
"""


@pytest.fixture(scope="session")
def box(lasting_install: Install, pytestconfig: pytest.Config) -> Iterator[Sandbox]:
    """The box, ready to run tests: ``/box/checkout``, packages in ``/box/site``, the cache in ``/box/cache``."""
    if sys.version_info[:2] != (3, 11):
        pytest.skip("the packages of this Python do not run in the box, which has Debian 12's 3.11")
    with pytestconfig.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        installation = lasting_install("base", str(HERE / "host"))
    with (
        installation.serving() as server,
        Client(api_url=server.url, api_key=server.token, timeout=600) as client,
        client.sandboxes.create("kvm-host", ttl_seconds=3600) as sandbox,
    ):
        with tempfile.NamedTemporaryFile() as file:
            with tarfile.open(fileobj=file, mode="w") as archive:
                images = anyio.run(_pack, archive)
            file.flush()
            packing.append_images(Path(file.name), config.cache_dir(), images)
            sandbox.exec("mkdir -p /box", check=True)
            sandbox.filesystem.upload(file.name, "/box/box.tar")
        sandbox.exec(_PREPARE, check=True, timeout_seconds=300)
        yield sandbox


async def _pack(archive: tarfile.TarFile) -> list[str]:
    cache = Cache(config.cache_dir())
    images = await packing.image_keys(cache, packing.ROOT / "templates" / "base")
    modules = await packing.kernel_modules(cache)
    packing.pack_program(archive)
    packing.pack_build(archive, cache.root)
    packing.pack_text(archive, "apt.sources", render(host_sources()).encode())
    packing.pack_text(archive, "modules/order", "\n".join(path.stem for path in modules).encode())
    for path in modules:
        archive.add(path, f"modules/{path.name}")
    return images
