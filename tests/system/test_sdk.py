"""Our SDK and the official one, each in its own way, against a real server."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pandastack import AsyncClient, AsyncSandbox, Sandbox
from tests.conformance import official
from tests.support.installation import Create, Server

EXAMPLE = Path(__file__).parents[2] / "examples" / "chart.py"
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="session")
def official_python() -> Path:
    return official.python_sdk()


@pytest.mark.alone  # the example's own limit of 30 seconds is for a machine that has a core to itself
def test_the_official_sdk_runs_the_example_unchanged(server: Server, official_python: Path, tmp_path: Path) -> None:
    """It finds server and token in the file that our server wrote."""
    found = "import pandastack, importlib.metadata as m; print(m.version('pandastack'), pandastack.__file__)"
    where = subprocess.run([official_python, "-c", found], capture_output=True, text=True, check=True).stdout
    assert where.split()[0] == official.PYTHON_SDK
    assert str(official_python.parents[1]) in where
    ran = subprocess.run(
        [official_python, EXAMPLE],
        cwd=tmp_path,
        env=server.installation.environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stderr
    chart = (tmp_path / "chart.png").read_bytes()
    assert ran.stdout == f"pulled {len(chart)} bytes\n"
    assert chart.startswith(PNG) and len(chart) > 5000


@pytest.mark.alone  # as above
def test_our_sdk_runs_the_same_example(server: Server, tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, EXAMPLE],
        cwd=tmp_path,
        env=server.installation.environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stderr
    assert (tmp_path / "chart.png").read_bytes().startswith(PNG)


CELLS = """
from pandastack import Sandbox, SandboxTimeout
with Sandbox.create(template="code-interpreter", ttl_seconds=300) as sandbox:
    with sandbox.create_code_context() as context:
        context.run_code("x = 41")
        ran = context.run_code("print('seen'); x + 1")
        assert (ran.stdout, ran.text, ran.exit_code, ran.error) == ("seen\\n", "42", 0, None), ran
        ran = context.run_code("import matplotlib.pyplot as plt; plt.plot([1, 2]); plt.show()", timeout_seconds=60)
        assert ran.png.startswith("iVBOR") and ran.results[0].chart == ran.png
        assert "ZeroDivisionError" in context.run_code("1/0").error
        try:
            context.run_code("while True: pass", timeout_seconds=1)
        except SandboxTimeout:
            pass
        else:
            raise AssertionError("no timeout")
        assert context.run_code("x").text == "41"
    print("ok")
"""


def test_the_official_sdk_runs_cells(server: Server, official_python: Path) -> None:
    environment = server.installation.environment
    ran = subprocess.run([official_python, "-c", CELLS], env=environment, capture_output=True, text=True, timeout=200)
    assert (ran.returncode, ran.stdout) == (0, "ok\n"), ran.stderr


def test_a_block_deletes_its_sandbox_even_after_an_error(server: Server, create: Create) -> None:
    client = create().client
    with pytest.raises(ZeroDivisionError), client.sandboxes.create("base") as sandbox:
        raise ZeroDivisionError
    assert sandbox.id not in [each.id for each in client.sandboxes.list()]


def test_code_runs(create: Create) -> None:
    sandbox = create()
    assert sandbox.run_code("print(sum(range(10)))").stdout == "45\n"
    assert sandbox.run_code("echo $((2**5))", language="bash").stdout == "32\n"
    assert sandbox.commands.run("echo also").stdout == "also\n"


def test_the_record_is_refreshed(create: Create) -> None:
    sandbox: Sandbox = create(metadata={"purpose": "test", "secret.key": "hidden"})
    other = sandbox.client.sandboxes.get(sandbox.id)
    assert other == sandbox.refresh()
    assert other.metadata["purpose"] == "test"
    assert "secret.key" not in other.metadata


@pytest.mark.anyio
async def test_the_asynchronous_sdk(server: Server) -> None:
    async with AsyncClient(server.url, server.token) as client:
        sandbox: AsyncSandbox = await client.sandboxes.create("base")
        async with sandbox:
            await sandbox.filesystem.write("/workspace/a", b"\x00async")
            chunks: list[str] = []
            assert await sandbox.exec_stream("wc -c < /workspace/a; echo >&2", chunks.append) == 0
            assert "".join(chunks).strip() == "6"
            assert (await sandbox.exec("echo $0")).exit_code == 0
            assert await sandbox.filesystem.read("/workspace/a") == b"\x00async"
        assert sandbox.id not in [each.id for each in await client.sandboxes.list()]
