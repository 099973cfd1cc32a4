"""zstd as a program: Python 3.11 has no module for it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from pandastack.errors import ServerError
from pandastack.host import facts

COMPRESS = ("-3", "-T0", "--check")
DECOMPRESS = ("-d", "-c", "--memory=128MB")
"""It takes no more memory than that, whatever an archive says."""


@contextmanager
def zstd(*arguments: str, stdin: int | IO[bytes], stdout: int | IO[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """zstd, killed if the block ends before it does."""
    program = facts.program("zstd")
    if program is None:
        raise ServerError("zstd is not installed", hint="apt-get install zstd")
    argv = [str(program), "-q", *arguments]
    with subprocess.Popen(argv, stdin=stdin, stdout=stdout, stderr=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


def last_words(process: subprocess.Popen[bytes]) -> str:
    """Why it failed."""
    assert process.stderr is not None
    return process.stderr.read(1000).decode("utf-8", "replace").strip() or f"status {process.returncode}"
