"""What there is to restore a database from."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pandastack.api.models.base import Answer, omitted_if_none, timestamp
from pandastack.errors import UnsupportedError
from pandastack.products import databases as product


class RestoreWindow(Answer):
    earliest: str
    latest: str = Field(description="What is later is archived before a restore begins")

    @classmethod
    def of(cls, window: product.Window) -> RestoreWindow:
        return cls(earliest=window.earliest_text, latest=window.latest_text)


class DatabaseArchive(Answer):
    state: Literal["archiving", "waiting", "broken"] = Field(
        description="`waiting` while the database does not run, `broken` with `error`"
    )
    as_of: str | None = omitted_if_none("What was committed before is archived")
    size_bytes: int
    error: str | None = omitted_if_none()

    @classmethod
    def of(cls, backups: product.Backups) -> DatabaseArchive:
        return cls(
            state=backups.health.value,
            as_of=None if backups.as_of is None else timestamp(backups.as_of),
            size_bytes=backups.size,
            error=backups.error,
        )


class BaseBackup(Answer):
    created_at: str
    size_bytes: int


class RestoreDrill(Answer):
    at: str
    seconds: float
    error: str | None = omitted_if_none("Why it failed")

    @classmethod
    def of(cls, drill: product.Drill) -> RestoreDrill:
        return cls(at=timestamp(drill.at), seconds=drill.seconds, error=drill.error)


class DatabaseBackups(Answer):
    archive: DatabaseArchive
    windows: list[RestoreWindow] = Field(description="Between them the archive has gaps")
    bases: list[BaseBackup] = Field(description="Oldest first")
    drill: RestoreDrill | None = omitted_if_none("The last restore that the server has tried out")

    @classmethod
    def of(cls, seen: product.Database) -> DatabaseBackups:
        """Raises :class:`UnsupportedError` when the database has no archive."""
        backups = seen.backups
        if backups is None:
            raise UnsupportedError(f"this server keeps no archive of database {seen.record.id}")
        bases = [BaseBackup(created_at=timestamp(each.ended_at), size_bytes=each.size) for each in backups.bases]
        windows = [RestoreWindow.of(each) for each in backups.windows]
        drill = None if backups.drill is None else RestoreDrill.of(backups.drill)
        return cls(archive=DatabaseArchive.of(backups), windows=windows, bases=bases, drill=drill)
