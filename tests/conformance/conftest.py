from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.conformance import official
from tests.conformance.official import DRIVERS, NPM_PACKAGE, Cli, Official, environment_of
from tests.support import oci_images
from tests.support.installation import Install, Server
from tests.support.registry import Registry, open_registry

IMAGE = "official/image:1"


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry with one image, :data:`IMAGE`."""
    if not oci_images.BUSYBOX.exists():
        pytest.skip("this host has no busybox-static")
    layout = oci_images.Layout(tmp_path_factory.mktemp("layout"))
    layout.image("busybox", [oci_images.busybox("sh", "cat", "cp", "grep", "printf")], {"Env": ["PATH=/bin"]})
    with open_registry(tmp_path_factory.mktemp("registry"), number=4) as made:
        made.push(layout, "busybox", IMAGE)
        yield made


@pytest.fixture(scope="session")
def server(lasting_install: Install, registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One of our own, whose silences are short: nobody waits ten seconds to see a sign of life.

    Whatever the clients ask for, each answer is compared with the server's OpenAPI document (``watched.py``).
    """
    answers = tmp_path_factory.mktemp("server") / "answers"
    quick = {"PANDASTACK_KEEP_ALIVE_SECONDS": "1", "PANDASTACK_REGISTRIES": registry.host}
    prefix = ("env", f"ANSWERS={answers}", f"PYTHONPATH={Path(__file__).parents[2]}")
    command = (sys.executable, "-m", "tests.conformance.watched")
    with lasting_install("base", "code-interpreter", "postgres", **quick).serving(
        prefix=prefix, command=command
    ) as server:
        yield server
    assert answers.read_text() == ""


@pytest.fixture(scope="session")
def python_sdk(server: Server, registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Official:
    argv = (str(official.python_sdk()), str(DRIVERS / "python" / "run.py"))
    environment = {**environment_of(server), "IMAGE": f"{registry.host}/{IMAGE}"}
    return Official("python", argv, environment, tmp_path_factory.mktemp("python"))


@pytest.fixture(scope="session")
def npm_package() -> Path:
    if missing := [program for program in ("node", "npm") if shutil.which(program) is None]:
        pytest.skip(f"this host has no {' and no '.join(missing)}")
    return official.npm_package()


@pytest.fixture(scope="session")
def typescript_sdk(
    server: Server, registry: Registry, npm_package: Path, tmp_path_factory: pytest.TempPathFactory
) -> Official:
    argv = ("node", str(DRIVERS / "js" / "run.mjs"))
    image = f"{registry.host}/{IMAGE}"
    environment = {**environment_of(server), "OFFICIAL_NPM": str(npm_package), "IMAGE": image}
    return Official("typescript", argv, environment, tmp_path_factory.mktemp("typescript"))


@pytest.fixture(params=["python", "typescript"])
def sdk(request: pytest.FixtureRequest, server: Server) -> Official:
    """Each of the two SDKs; the scenarios have the same names and results of the same shape in both."""
    chosen: Official = request.getfixturevalue(f"{request.param}_sdk")
    return chosen


@pytest.fixture
def npm_cli(server: Server, npm_package: Path, tmp_path: Path) -> Cli:
    """Run the ``pandastack`` command of the npm package."""
    program = npm_package / "node_modules" / NPM_PACKAGE / "dist" / "cli.js"

    def cli(*arguments: str, input: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["node", str(program), *arguments],
            env=environment_of(server),
            cwd=tmp_path,
            input=input,
            capture_output=True,
            text=True,
            timeout=official.SECONDS,
        )

    return cli


@pytest.fixture
def path(http: httpx.Client) -> Iterator[str]:
    """The path of a sandbox that ends with the test, for tests that speak plain HTTP."""
    made = http.post("/sandboxes", json={"template": "base"}).json()
    yield f"/sandboxes/{made['id']}"
    http.delete(f"/sandboxes/{made['id']}")
