"""Where builds are on disk: a directory each, with its record, log, artifacts and provenance."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pandastack.contract.codec import decode_answer, encode
from pandastack.errors import PandastackError, ServerError, UnavailableError
from pandastack.products.builds.records import BuildRecord
from pandastack.recorder.blobs import Blobs

_FETCHED = "fetched"
"""The directory of what builds have fetched, among those of builds."""


def shelf_directory(configured: str, database_url: str) -> Path | None:
    """Where builds are: as configured, else beside a database that is a file."""
    if configured:
        return Path(configured).expanduser().absolute()
    scheme, _, path = database_url.partition(":///")
    return Path(path).with_name("builds") if scheme.startswith("sqlite") and path else None


@dataclass(frozen=True, slots=True)
class Place:
    """The files of one build."""

    directory: Path

    @property
    def record(self) -> Path:
        return self.directory / "record.json"

    @property
    def log(self) -> Path:
        return self.directory / "log"

    @property
    def provenance(self) -> Path:
        return self.directory / "provenance.json"

    @property
    def artifacts(self) -> Path:
        """The artifacts' archive in normal form."""
        return self.directory / "artifacts.tar"

    @property
    def second(self) -> Path:
        """The same of the second build, where the two differ."""
        return self.directory / "second.tar"

    @property
    def report(self) -> Path:
        """What diffoscope says of the difference between the two."""
        return self.directory / "report.txt"

    @property
    def lock(self) -> Path:
        """The lock that the build is held to, or has recorded."""
        return self.directory / "lock"

    @property
    def spool(self) -> Path:
        """The directory of what a running build fetches."""
        return self.directory / ".fetched"

    def scratch(self, name: str) -> Path:
        """A file that only a running build has."""
        return self.directory / f".{name}"

    def make(self) -> None:
        """Make the directory. Raises :class:`ServerError`."""
        try:
            self.directory.mkdir(mode=0o700, parents=True)
        except OSError as error:
            raise ServerError(f"cannot store builds: {error}", public="builds cannot be stored") from error

    def tidy(self) -> None:
        """Remove what only a running build has."""
        shutil.rmtree(self.spool, ignore_errors=True)
        for left in self.directory.glob(".*"):
            left.unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove everything."""
        shutil.rmtree(self.directory, ignore_errors=True)


class Shelf:
    """All builds on disk. Without a directory there are none, and none can begin."""

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory

    def place(self, build_id: str) -> Place:
        """The place of one build. Raises :class:`UnavailableError` without a directory."""
        if self._directory is None:
            hint = "the operator sets PANDASTACK_BUILDS_DIR"
            raise UnavailableError("this server has no directory for builds", hint=hint)
        return Place(self._directory / build_id)

    def blobs(self, workspace: str) -> Blobs:
        """What builds of a workspace have fetched. Raises :class:`UnavailableError` without a directory."""
        name = hashlib.sha256(workspace.encode()).hexdigest()[:32]
        return Blobs(self.place(_FETCHED).directory / name)

    def save(self, record: BuildRecord) -> None:
        """Write a record, whole or not at all. Raises :class:`ServerError`."""
        path = self.place(record.id).record
        new = path.with_name(".record.new")
        try:
            with new.open("wb") as file:
                file.write(encode(record))
                file.flush()
                os.fsync(file.fileno())
            new.rename(path)
        except OSError as error:
            raise ServerError(f"cannot store a build: {error}", public="the build cannot be stored") from error

    def load(self) -> Iterator[BuildRecord]:
        """Every record. What was not a build yet, and what another version wrote, is removed."""
        if self._directory is None or not self._directory.is_dir():
            return
        for directory in self._directory.iterdir():
            if directory.name == _FETCHED:
                continue
            place = Place(directory)
            try:
                yield decode_answer(BuildRecord, place.record.read_bytes())
            except (OSError, PandastackError):
                place.remove()
