"""Wheels unpacked into trees by PyPA's ``installer``, without running anything that is in them.

``installer`` writes files, scripts and RECORD, and refuses paths that leave their directories. It trusts a wheel's
sizes and syntax, so this module checks those first: a hostile wheel is a zip archive that unpacks to terabytes, or
metadata that takes hours to parse.

As a program it unpacks the wheels that its standard input lists. Several such processes share one list:
whichever makes a wheel's directory unpacks that wheel.
Format: https://packaging.python.org/en/latest/specifications/binary-distribution-format/
"""

from __future__ import annotations

import compileall
import gc
import json
import os
import re
import resource
import stat
import sys
import warnings
import zipfile
from dataclasses import dataclass
from importlib.util import MAGIC_NUMBER
from pathlib import Path
from typing import BinaryIO

from installer import install
from installer.destinations import SchemeDictionaryDestination
from installer.records import RecordEntry
from installer.sources import WheelFile
from installer.utils import Scheme
from packaging.utils import parse_wheel_filename

from pandastack.errors import BuildError

UNPACKED_MAX = 8 * 1024**3
"""The most bytes that one wheel may unpack to. PyTorch's with CUDA, the largest that people use, has 4 GiB."""

EXPANSION_MAX = 100
"""How many times its size (at least 1 MiB) a wheel may unpack to. Usual are 3 to 8."""

MEMBERS_MAX = 200_000
NAME_MAX = 1024

METADATA_MAX = 256 * 1024
"""The most bytes that ``WHEEL`` and ``entry_points.txt`` may have each."""

MEMORY_MAX = 2 * 1024**3
"""The most bytes of address space of the program. Some compressed data makes gigabytes of a few kilobytes at once."""

TIME = 1686355200
"""2023-06-10, Debian 12's release: the time of every unpacked file. Bytecode carries the time of its source."""

_TESTS = re.compile(r"/tests/")
"""What is not compiled ahead: half of the modules of the scientific packages are tests that nobody imports."""

_SLOW = re.compile(r"%|\s{100}")
"""What makes configparser or a regular expression of ``installer`` slow: interpolation, which may double a text again
and again, and long white space, whose every split is tried."""


@dataclass(frozen=True)
class Python:
    """A Debian suite's Python: where it finds what an administrator installs, and which bytecode it runs."""

    version: str
    magic: bytes

    @property
    def library(self) -> str:
        return f"/usr/local/lib/python{self.version}/dist-packages"

    def schemes(self, distribution: str) -> dict[str, str]:
        """Directory of each installation scheme: those of ``pip install`` as root."""
        return {
            "purelib": self.library,
            "platlib": self.library,
            "headers": f"/usr/local/include/python{self.version}/{distribution}",
            "scripts": "/usr/local/bin",
            "data": "/usr/local",
        }

    @property
    def compiles_here(self) -> bool:
        """Whether the interpreter that runs this module makes bytecode for it."""
        return self.magic == MAGIC_NUMBER


PYTHON = Python("3.11", (3495).to_bytes(2, "little") + b"\r\n")
"""Debian 12's. The magic number is that of CPython 3.11 (Lib/importlib/_bootstrap_external.py)."""


def unpack_wheel(wheel: Path, into: Path, python: Python = PYTHON, requested: bool = False) -> None:
    """Install ``wheel`` into the empty directory ``into`` and compile it when that is possible here.

    Raises :class:`BuildError` for a wheel that is malformed or leaves the directory.
    """
    metadata = {"INSTALLER": b"pandastack\n", **({"REQUESTED": b""} if requested else {})}
    try:
        parse_wheel_filename(wheel.name)
        with zipfile.ZipFile(wheel) as archive, warnings.catch_warnings(action="ignore"):
            source = _Wheel(archive)
            _check_members(archive, source, wheel.stat().st_size)
            _check_metadata(archive, source)
            schemes = python.schemes(source.distribution)
            install(source, _Destination(schemes, "/usr/bin/python3", "posix", destdir=str(into)), metadata)
    except Exception as error:  # hostile input has errors of csv, email, zlib, struct and others
        raise BuildError(f"{wheel.name} cannot be unpacked: {error or type(error).__name__}") from error
    for folder, _, names in os.walk(into):
        for name in names:
            os.utime(Path(folder, name), (TIME, TIME))
    if python.compiles_here:
        _compile(into / python.library.lstrip("/"), into)


def _compile(library: Path, tree: Path) -> None:
    """Bytecode says which constants are interned. One-letter strings are shared by all that a process compiles, and a
    variable named "Ø" interns that letter for every later module: equal bytecode takes that all are interned."""
    for code in range(256):
        sys.intern(chr(code))
    compileall.compile_dir(library, quiet=2, stripdir=str(tree), prependdir="/", maxlevels=64, rx=_TESTS)


class _Wheel(WheelFile):
    @property
    def data_dir(self) -> str:
        """Named like the ``.dist-info`` directory, which may spell the name in another way than the file does."""
        return self.dist_info_dir.removesuffix(".dist-info") + ".data"


class _Destination(SchemeDictionaryDestination):
    def write_file(
        self, scheme: Scheme, path: str | os.PathLike[str], stream: BinaryIO, is_executable: bool
    ) -> RecordEntry:
        """Wheels made on Windows do not say that their scripts are executable."""
        return super().write_file(scheme, path, stream, is_executable or scheme == "scripts")


def _check_members(archive: zipfile.ZipFile, source: WheelFile, size: int) -> None:
    members = archive.infolist()
    most = min(UNPACKED_MAX, EXPANSION_MAX * max(size, 1024**2))
    if len(members) > MEMBERS_MAX or sum(member.file_size for member in members) > most:
        raise ValueError("it is implausibly large")
    for member in members:
        name = member.filename
        kind = stat.S_IFMT(member.external_attr >> 16)
        parts = name.rstrip("/").split("/")
        if name.startswith("/") or "\\" in name or len(name) > NAME_MAX or any(p in ("", ".", "..") for p in parts):
            raise ValueError(f"the name {name[:80]!r} leaves the tree")
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise ValueError(f"{name[:80]!r} is neither a file nor a directory")
        if parts[0] == source.data_dir and len(parts) < 3 and not member.is_dir():
            raise ValueError(f"{name[:80]!r} belongs to no scheme")


def _check_metadata(archive: zipfile.ZipFile, source: WheelFile) -> None:
    for name in {"WHEEL", "entry_points.txt"}.intersection(source.dist_info_filenames):
        size = archive.getinfo(f"{source.dist_info_dir}/{name}").file_size
        if size > METADATA_MAX or (name != "WHEEL" and _SLOW.search(source.read_dist_info(name))):
            raise ValueError(f"its {name} is implausible")


def main() -> None:
    """Unpack those of the listed wheels that no other process has begun."""
    os.umask(0o022)
    gc.disable()  # the compiler makes hardly any cycles, and looking for them takes a seventh of the time
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_MAX, MEMORY_MAX))
    try:
        for wheel, into, requested in json.load(sys.stdin):
            if _claim(Path(into)):
                unpack_wheel(Path(wheel), Path(into), requested=requested)
    except BuildError as error:
        sys.exit(error.message)


def _claim(directory: Path) -> bool:
    try:
        directory.mkdir()
    except FileExistsError:
        return False
    return True


if __name__ == "__main__":
    main()
