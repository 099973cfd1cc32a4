"""Programs of this host, run with their own loader and libraries wherever they are put."""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path

import pytest

from pandastack.errors import BuildError
from pandastack.host.processes.run import run
from pandastack.images.lent_tools import PLACE, PROGRAMS, find_tools, lent, libraries

pytestmark = pytest.mark.anyio

LISTED = """\
/usr/bin/bash:
\tlinux-vdso.so.1 (0x00007ffc0b1f0000)
\tlibtinfo.so.6 => /lib/x86_64-linux-gnu/libtinfo.so.6 (0x00007f1d5f000000)
\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f1d5ee00000)
\t/lib64/ld-linux-x86-64.so.2 (0x00007f1d5f1a5000)
/usr/bin/static:
\tnot a dynamic executable
"""


def test_libraries_are_read_from_ldd() -> None:
    assert libraries(LISTED) == {
        "libtinfo.so.6": Path("/lib/x86_64-linux-gnu/libtinfo.so.6"),
        "libc.so.6": Path("/lib/x86_64-linux-gnu/libc.so.6"),
        "ld.so": Path("/lib64/ld-linux-x86-64.so.2"),
    }


async def test_a_program_that_is_missing_is_named() -> None:
    with pytest.raises(BuildError, match="no program no-such-program"):
        await find_tools(["no-such-program"])


async def test_bash_calls_the_others_by_their_names(tmp_path: Path) -> None:
    """An archive is unpacked by a tar and a gzip that are nowhere in the search path."""
    for name, path in (await find_tools()).items():
        shutil.copy(path, tmp_path / name)
    with tarfile.open(tmp_path / "archive", "w:gz") as tar:
        tar.add(__file__, "file")
    unpack = "tar -xf archive --use-compress-program=gzip -C out"
    script = f"set -euo pipefail; mkdir out; command -v gzip; {unpack}; cat out/file"
    prepared = [word.replace(PLACE, str(tmp_path)) for word in lent(("/bin/bash", "-c", script))]
    done = await run(prepared, env={"PATH": "/nowhere"}, cwd=tmp_path, timeout=20)
    assert done.text == f"gzip\n{Path(__file__).read_text()}"


async def test_they_run_from_any_folder(tmp_path: Path) -> None:
    """Every program that is lent starts, though nothing of the host's own is in its search path."""
    tools = await find_tools()
    for name, path in tools.items():
        shutil.copy(path, tmp_path / name)
    assert set(PROGRAMS) <= set(tools)
    for name in PROGRAMS:
        argv = lent((name, "--version"), str(tmp_path))
        assert (await run(argv, env={"PATH": "/nowhere"}, timeout=20)).stdout, name
