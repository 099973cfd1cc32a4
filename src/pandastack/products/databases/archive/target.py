"""Where archives are kept: things under names, such as ``ID/0001/wal/NAME.gz``. All calls block; threads make them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Protocol

from pandastack.errors import ServerError, StorageFullError

_UNFINISHED = ".new-"


class Target(Protocol):
    """Each thing appears and disappears as a whole. Errors are :class:`ServerError`."""

    is_remote: bool
    """Whether it is to survive the loss of this host: then it gets the log before a file of it is complete, too."""

    def put(self, name: str, source: Path) -> None:
        """Store a copy of the file ``source``, in the place of what has the name. It is durable when this returns."""
        ...

    def put_bytes(self, name: str, data: bytes) -> None:
        """The same for bytes."""
        ...

    def open(self, name: str) -> IO[bytes]:
        """Read it. Raises :class:`FileNotFoundError`."""
        ...

    def sizes(self, prefix: str) -> Mapping[str, int]:
        """The names below ``prefix``, a name of a directory or empty, with their sizes."""
        ...

    def delete(self, name: str) -> None:
        """Delete one; a missing one is fine."""
        ...

    def delete_all(self, prefix: str) -> None:
        """Delete everything below ``prefix``."""
        ...


class DirectoryTarget:
    """A directory of the host. What is pending lies there, too."""

    is_remote = False

    def __init__(self, root: Path) -> None:
        self._root = root

    def put(self, name: str, source: Path) -> None:
        with self._adding(name) as new, source.open("rb") as file:
            shutil.copyfileobj(file, new, 1 << 20)

    def put_bytes(self, name: str, data: bytes) -> None:
        with self._adding(name) as new:
            new.write(data)

    def open(self, name: str) -> IO[bytes]:
        return (self._root / name).open("rb")

    def sizes(self, prefix: str) -> Mapping[str, int]:
        found: dict[str, int] = {}
        for directory, _, names in os.walk(self._root / prefix):
            for name in names:
                path = Path(directory, name)
                if not name.startswith("."):
                    with suppress(FileNotFoundError):
                        found[str(path.relative_to(self._root))] = path.stat().st_size
        return found

    def delete(self, name: str) -> None:
        with mapped():
            (self._root / name).unlink(missing_ok=True)

    def delete_all(self, prefix: str) -> None:
        with mapped():
            if (self._root / prefix).exists():
                shutil.rmtree(self._root / prefix)

    @contextmanager
    def _adding(self, name: str) -> Iterator[IO[bytes]]:
        path = self._root / name
        new = path.with_name(f"{_UNFINISHED}{path.name}")
        with mapped():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            try:
                with new.open("wb") as file:
                    yield file
                    file.flush()
                    os.fsync(file.fileno())
                new.rename(path)
                sync_directory(path.parent)
            except BaseException:
                new.unlink(missing_ok=True)
                raise


def sync_directory(directory: Path) -> None:
    """Make the names in a directory durable."""
    fd = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextmanager
def mapped() -> Iterator[None]:
    """Errors of files inside the block are ours: :class:`ServerError`, :class:`StorageFullError`."""
    try:
        yield
    except OSError as error:
        if error.errno in (28, 122):
            raise StorageFullError("the place of the database backups is full") from error
        raise ServerError("the server cannot write database backups", detail={"cause": str(error)}) from error
