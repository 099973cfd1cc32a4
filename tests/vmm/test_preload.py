"""The library that is loaded into the VMM, loaded into another program."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from pandastack.host import c_compiler
from pandastack.vmm.qemu import preload
from pandastack.vmm.qemu.environment import vmm_environment
from pandastack.vmm.qemu.preload import VARIABLE
from tests.support.plans import PLAN

PROGRAM = """
import os, sys
for path in sys.argv[1:]:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o640)
    try:
        os.write(fd, b"written")
    except OSError as error:
        print(os.path.basename(path), error.strerror)
"""


@pytest.fixture
def library() -> Path:
    found = preload.library()
    assert found is not None
    return found


def test_exactly_one_file_is_opened_for_reading_only(library: Path, tmp_path: Path) -> None:
    shared, own = tmp_path / "shared", tmp_path / "own"
    shared.write_bytes(b"as it was")
    environment = {"LD_PRELOAD": str(library), VARIABLE: str(shared)}
    argv = [sys.executable, "-c", PROGRAM, shared, own]
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=True, umask=0)
    assert (done.stdout, done.stderr) == ("shared Bad file descriptor\n", "")
    assert (shared.read_bytes(), own.read_bytes()) == (b"as it was", b"written")
    assert own.stat().st_mode & 0o777 == 0o640


def test_it_is_loaded_where_the_memory_is_private(library: Path) -> None:
    always = {"PATH": os.environ["PATH"], "LC_ALL": "C"}
    restored, bake = PLAN, replace(PLAN, memory_shared=True)
    assert vmm_environment(restored, library) == always | {"LD_PRELOAD": str(library), VARIABLE: "/pool/memory"}
    assert vmm_environment(bake, library) == vmm_environment(restored, None) == always


@pytest.mark.parametrize("arch", preload.ARCHITECTURES)
def test_it_is_small_and_there_for_every_architecture(arch: str) -> None:
    assert preload.build(arch).stat().st_size < 16_000


@pytest.mark.parametrize("name", ["with space", "with:colon"])
def test_a_directory_that_the_linker_would_misread(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preload, "target", lambda arch: tmp_path / name / "library.so")
    (tmp_path / name).mkdir()
    (tmp_path / name / "library.so").touch()
    assert preload.library.__wrapped__() is None


def test_where_it_cannot_be_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preload, "target", lambda arch: tmp_path / "library.so")
    monkeypatch.setattr(c_compiler, "find_compiler", lambda *_, **__: ["/bin/false"])
    assert preload.library.__wrapped__() is None
