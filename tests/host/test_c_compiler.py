"""Which compiler builds what."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from pandastack.host import c_compiler
from pandastack.host.c_compiler import Libc, compile_c, find_compiler


def test_other_hosts_get_what_zig_builds() -> None:
    assert "aarch64-linux-musl" in (find_compiler("aarch64", Libc.MUSL) or ())
    assert "x86_64-linux-gnu.2.17" in (find_compiler("x86_64", Libc.GNU, portable=True) or ())


def test_this_host_needs_no_zig_where_it_has_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(c_compiler.shutil, "which", lambda name: f"/bin/{name}")
    monkeypatch.setattr(Path, "exists", lambda path: True)
    assert (find_compiler(platform.machine(), Libc.MUSL) or [])[0] == "/bin/musl-gcc"
    assert find_compiler(platform.machine(), Libc.GNU) == ["/bin/gcc"]


def test_musl_needs_the_kernels_headers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(c_compiler.shutil, "which", lambda name: f"/bin/{name}")
    monkeypatch.setattr(Path, "exists", lambda path: False)
    assert "ziglang" in (find_compiler(platform.machine(), Libc.MUSL) or ())


def test_without_a_compiler_the_error_has_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(c_compiler, "find_compiler", lambda *_, **__: None)
    with pytest.raises(FileNotFoundError, match="musl-tools"):
        compile_c("x86_64", Libc.MUSL, [], tmp_path / "program")
