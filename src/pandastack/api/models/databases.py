"""Databases."""

from __future__ import annotations

from dataclasses import asdict
from typing import Literal

from pydantic import Field, StrictBool

from pandastack.api.models.base import Answer, Body, WholeNumber, omitted_if_none, timestamp
from pandastack.api.models.database_backups import DatabaseArchive, RestoreWindow
from pandastack.products import databases as product
from pandastack.products.databases.spec import DATABASE, LARGEST_DISK_GB, ROLE, SIZES


class CreateDatabase(Body):
    label: str | None = Field(None, description="Up to 128 characters for people")
    size: str | None = Field(None, description="Memory: `1g` (default), `4g` or `16g`")
    always_on: StrictBool | None = Field(None, description="Do not let it sleep when it is idle")

    def wanted(self) -> product.NewDatabase:
        return product.checked_new(self.label, self.size, self.always_on)


class CloneDatabase(Body):
    label: str | None = Field(None, description="By default that of the source with ` (clone)`")
    size: str | None = Field(
        None, description="By default that of the source; another one is restored from the archive"
    )
    target_time: str | None = Field(
        None, description="A time of RFC 3339: the copy is restored from the archive, as the source was then"
    )


class UpdateDatabase(Body):
    always_on: StrictBool | None = Field(None, description="Do not let it sleep when it is idle")
    disk_gb: WholeNumber | None = Field(
        None, description=f"GiB of its disk, at most {LARGEST_DISK_GB}; not less than it has. One that sleeps is woken"
    )


class Database(Answer):
    id: str
    status: str = Field(description="`provisioning`, `running`, `hibernated`, `waking` or `failed`")
    template: str
    label: str
    created_at: str
    host: str
    port: int | None = omitted_if_none("Once the gateway answers for databases")
    database: str
    username: str
    password: str | None = omitted_if_none("Once it has one, and only where one database is asked for")
    connection_url: str | None = omitted_if_none("The same; connecting wakes a database that sleeps")
    broker_url: str = Field(description="Where statements can be sent over HTTP")
    broker_token: str | None = omitted_if_none("What they are sent with; as the password")
    error: str | None = omitted_if_none("Why it has failed")
    failover_available: Literal[False] = False
    failover_reason: str = "this server has one node"
    sandbox_id: str
    size: str
    disk_gb: int = Field(description="GiB of its disk")
    disk_state: str | None = omitted_if_none(
        "`ok`, `nearly_full`, `full`, `read_only` or `waiting`, where one database that runs is asked for"
    )
    disk_used_pct: float | None = omitted_if_none("The same; it may be ten seconds old")
    cloned_from: str | None = omitted_if_none("The database that it began as a copy of")
    target_time: str | None = omitted_if_none("The time of its source that it was restored to")
    always_on: bool
    restore_window: RestoreWindow | None = omitted_if_none("Once it has a base backup")
    archive: DatabaseArchive | None = omitted_if_none("Unless the server keeps none")

    @classmethod
    def of(cls, seen: product.Database, base: str) -> Database:
        record, backups = seen.record, seen.backups
        window = None if backups is None else backups.window
        return cls(
            id=record.id,
            status=seen.status,
            template=SIZES[record.size].template,
            label=record.label,
            created_at=timestamp(record.created_at),
            host=seen.host,
            port=seen.port,
            database=DATABASE,
            username=ROLE,
            password=seen.password,
            connection_url=seen.url,
            broker_url=broker_url(base, record.id),
            broker_token=seen.broker_token,
            error=seen.error,
            sandbox_id=record.id,
            size=record.size,
            disk_gb=seen.disk_gb,
            disk_state=None if seen.room is None else seen.room.state,
            disk_used_pct=None if seen.room is None else seen.room.used_pct,
            cloned_from=record.cloned_from,
            target_time=None if record.target_time is None else timestamp(record.target_time),
            always_on=record.always_on,
            restore_window=None if window is None else RestoreWindow.of(window),
            archive=None if backups is None else DatabaseArchive.of(backups),
        )


class DatabaseConnection(Answer):
    connection_url: str
    broker_url: str
    broker_token: str


def broker_url(base: str, database_id: str) -> str:
    """The address of a database's query broker, at an API with the address ``base``."""
    return f"{base}/v1/databases/{database_id}/proxy"


class DatabaseWaking(Answer):
    id: str
    status: Literal["waking"] = "waking"
    detail: str | None = omitted_if_none()


class DatabaseStatistics(Answer):
    postgres_version: str
    db_size_bytes: int = Field(description="All databases of the server together")
    connections: int
    max_connections: int
    uptime_seconds: int
    cache_hit_ratio: float | None = Field(description="From 0 to 1; null before the first read")
    disk_size_bytes: int
    disk_used_bytes: int
    disk_avail_bytes: int
    disk_used_pct: float
    running_queries: int = Field(description="They keep it awake")
    open_transactions: int = Field(description="Those that wait for their clients; they sleep with it")
    wal_bytes: int = Field(description="Where its log ends: it grows by what is written")
    archive_lag_bytes: int | None = Field(description="How much of the log is not archived; null: it has no archive")
    awake_because: list[product.Work] = Field(description="What keeps it awake even when no client sends anything")
    idle_seconds: int = Field(description="Since it was last used")
    sleeps_in_seconds: int | None = Field(description="Unless it is used; null: it does not sleep")

    @classmethod
    def of(cls, found: product.Statistics, awake: tuple[int, int | None], always_on: bool) -> DatabaseStatistics:
        disk, numbers = found.disk, asdict(found.numbers)
        return cls(
            disk_size_bytes=disk.size,
            disk_used_bytes=disk.used,
            disk_avail_bytes=disk.free,
            **{name: each for name, each in numbers.items() if name != "work"},
            disk_used_pct=disk.used_pct,
            archive_lag_bytes=found.archive_lag_bytes,
            awake_because=[*([product.Work.ALWAYS_ON] if always_on else []), *found.numbers.work],
            idle_seconds=awake[0],
            sleeps_in_seconds=awake[1],
        )


class DatabaseLog(Answer):
    logs: str
