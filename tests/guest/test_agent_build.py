"""The agent's parsers under sanitizers and a fuzzer, and the program itself."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pandastack.errors import BuildError
from pandastack.guest.agent import binary

ROOT = Path(__file__).resolve().parents[2] / "guest-agent"
FUZZED = [
    ROOT / "fuzz/fuzz.c",
    *(ROOT / "src" / name for name in ("channel/parser.c", "channel/tlv.c", "channel/request.c")),
]
FLAGS = ["-std=c11", "-D_GNU_SOURCE", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-I", str(ROOT / "src")]


def compiler() -> list[str]:
    """The system's compiler with all sanitizers. The packaged one has no library for that of addresses."""
    if shutil.which("cc") is not None:
        return ["cc", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    argv = [sys.executable, "-m", "ziglang", "cc", "-target", "x86_64-linux-musl", "-static"]
    return [*argv, "-fsanitize=undefined", "-fsanitize-trap=undefined"]


RINGS = [ROOT / "fuzz/ring.c", ROOT / "src/streams/ring.c"]
LOGS = [ROOT / "fuzz/log.c", ROOT / "src/processes/log.c"]
SFTP = [
    ROOT / "fuzz/sftp.c",
    *(ROOT / "src/sftp" / name for name in ("packet.c", "attributes.c", "handles.c")),
]


pytestmark = pytest.mark.timeout(600)
"""A cold compiler takes a minute for each architecture."""


@pytest.mark.parametrize("sources", [FUZZED, LOGS, RINGS, SFTP], ids=["parsers", "logs", "rings", "sftp"])
def test_parsers_and_buffers_survive_a_fuzzer(sources: list[Path], tmp_path: Path) -> None:
    program = tmp_path / "fuzz"
    built = subprocess.run([*compiler(), *FLAGS, "-o", program, *sources], capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    for seed in ("1", "2"):
        argv = [program, seed, "250", tmp_path]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stderr
        assert int(done.stdout.split()[0]) > 20


@pytest.mark.parametrize(("arch", "machine"), [("x86_64", 62), pytest.param("aarch64", 183, marks=pytest.mark.slow)])
def test_the_program_is_static_and_small(arch: str, machine: int) -> None:
    data = binary(arch).read_bytes()
    assert data[:4] == b"\x7fELF"
    assert int.from_bytes(data[18:20], "little") == machine
    assert len(data) < 200_000
    assert b"ld-musl" not in data


def test_an_unknown_architecture_is_a_build_error() -> None:
    with pytest.raises(BuildError):
        binary("vax")


def test_every_source_file_has_a_header_of_its_own() -> None:
    sources = sorted((ROOT / "src").rglob("*.c"))
    assert len(sources) > 30
    assert [path.name for path in sources if not path.with_suffix(".h").exists()] == ["main.c"]
