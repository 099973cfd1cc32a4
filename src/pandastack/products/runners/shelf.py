"""Where logs and artifacts of jobs are on disk, and the uploaded checkouts of pools: a directory each."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass
from pathlib import Path

import anyio

from pandastack.errors import ServerError, TooLargeError, UnavailableError
from pandastack.services.files.tar_filter import Outside, TarFilter


def shelf_directory(configured: str, database_url: str) -> Path | None:
    """Where they are: as configured, else beside a database that is a file."""
    if configured:
        return Path(configured).expanduser().absolute()
    scheme, _, path = database_url.partition(":///")
    return Path(path).with_name("jobs") if scheme.startswith("sqlite") and path else None


@dataclass(frozen=True, slots=True)
class Place:
    """The files of a job or a pool."""

    directory: Path

    @property
    def log(self) -> Path:
        return self.directory / "log"

    @property
    def artifacts(self) -> Path:
        """The archive of a job's artifacts."""
        return self.directory / "artifacts.tar"

    @property
    def source(self) -> Path:
        """The archive of a pool's checkout."""
        return self.directory / "source.tar"

    def make(self) -> None:
        """Make the directory. Raises :class:`ServerError`."""
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ServerError(f"cannot store jobs: {error}", public="jobs cannot be stored") from error

    def remove(self) -> None:
        """Remove everything."""
        shutil.rmtree(self.directory, ignore_errors=True)


class Shelf:
    """All of them. Without a directory there are none, and none can begin."""

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory

    def place(self, name: str) -> Place:
        """The place of a job or a pool, by its id. Raises :class:`UnavailableError` without a directory."""
        if self._directory is None:
            hint = "the operator sets PANDASTACK_JOBS_DIR"
            raise UnavailableError("this server has no directory for jobs", hint=hint)
        return Place(self._directory / name)

    def tidy(self, known: Collection[str]) -> None:
        """Remove what belongs to no record."""
        if self._directory is None or not self._directory.is_dir():
            return
        for directory in self._directory.iterdir():
            if directory.name not in known:
                Place(directory).remove()


async def spool(source: AsyncIterator[bytes], target: Path, most: int, field: str) -> int:
    """Write a foreign archive to a file, made safe and whole or not at all; returns its size. Links may lead outside.

    Raises :class:`BadRequestError`, and :class:`TooLargeError` that names ``field`` for more than ``most`` bytes.
    """
    checked, total, size = TarFilter(Outside.KEEP), 0, 0
    new = target.with_name(f".{target.name}.new")
    try:
        async with await anyio.open_file(new, "wb") as file:
            async for chunk in source:
                total += len(chunk)
                if total > most:
                    raise TooLargeError(f"{field}: over {most} bytes", field=field)
                size += await file.write(checked.feed(chunk))
            checked.end()
        new.rename(target)
    finally:
        new.unlink(missing_ok=True)
    return size
