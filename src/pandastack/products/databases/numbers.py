"""What a database server tells its operator of itself: the queries, and what is made of their answers. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from pandastack.errors import GuestError
from pandastack.products.databases.archive.wal import position_of
from pandastack.products.databases.disk import Disk
from pandastack.products.databases.wire import Row

_CLIENTS = "count(*) FILTER (WHERE backend_type = 'client backend'"
_WORK = f"""{_CLIENTS} AND state IN ('active', 'fastpath function call')),
    count(*) FILTER (WHERE backend_type = 'autovacuum worker'),
    count(*) FILTER (WHERE backend_type = 'walsender' AND usename <> 'postgres')"""
"""Replication by others than the superuser: the archive's own is no reason to be awake."""

_OTHERS = "FROM pg_stat_activity WHERE pid <> pg_backend_pid()"

WORK_QUERY = f"SELECT {_WORK} {_OTHERS}"

NUMBERS_QUERY = f"""SELECT current_setting('server_version'),
    (SELECT sum(pg_database_size(oid))::int8 FROM pg_database WHERE NOT datistemplate),
    {_CLIENTS}),
    current_setting('max_connections'),
    extract(epoch FROM now() - pg_postmaster_start_time())::int8,
    (SELECT round(sum(blks_hit) / nullif(sum(blks_hit + blks_read), 0), 4) FROM pg_stat_database),
    {_CLIENTS} AND state LIKE 'idle in transaction%'),
    (SELECT count(*) FROM pg_stat_replication WHERE state = 'backup'),
    pg_current_wal_flush_lsn(),
    {_WORK}
    {_OTHERS}"""


class Work(StrEnum):
    """What keeps a database awake whose clients are silent."""

    ALWAYS_ON = "always_on"
    QUERY = "query"
    AUTOVACUUM = "autovacuum"
    REPLICATION = "replication"
    BASE_BACKUP = "base_backup"


@dataclass(frozen=True, slots=True)
class Numbers:
    """Numbers of a server; sizes in bytes. ``cache_hit_ratio`` is from 0 to 1, None before the first read.

    ``wal_bytes`` is where the log ends that is on the disk: it grows by what is written. ``work`` is what keeps the
    database awake by itself; open transactions and connections do not.
    """

    postgres_version: str
    db_size_bytes: int
    connections: int
    max_connections: int
    uptime_seconds: int
    cache_hit_ratio: float | None
    running_queries: int
    open_transactions: int
    wal_bytes: int
    work: tuple[Work, ...]


@dataclass(frozen=True, slots=True)
class Statistics:
    """Numbers of a database. ``archive_lag_bytes``: how much of its log is not archived; None: it has no archive."""

    numbers: Numbers
    disk: Disk
    archive_lag_bytes: int | None


def read_work(rows: Sequence[Row]) -> tuple[Work, ...]:
    """The answer to :data:`WORK_QUERY`. Raises :class:`GuestError` for what is none."""
    try:
        ((queries, vacuums, senders),) = rows
        return _work(queries, vacuums, senders)
    except ValueError as error:
        raise GuestError("the database server's numbers are malformed") from error


def read_numbers(rows: Sequence[Row]) -> Numbers:
    """The answer to :data:`NUMBERS_QUERY`. The same error."""
    try:
        ((version, size, connections, most, uptime, ratio, waiting, backups, position, *work),) = rows
        queries, vacuums, senders = work
        return Numbers(
            postgres_version=(version or "")[:64],
            db_size_bytes=_count(size),
            connections=_count(connections),
            max_connections=_count(most),
            uptime_seconds=_count(uptime),
            cache_hit_ratio=None if ratio is None else _share(ratio),
            running_queries=_count(queries),
            open_transactions=_count(waiting),
            wal_bytes=position_of(position or ""),
            work=(*_work(queries, vacuums, senders), *([Work.BASE_BACKUP] if _count(backups) else [])),
        )
    except ValueError as error:
        raise GuestError("the database server's numbers are malformed") from error


def _work(queries: str | None, vacuums: str | None, senders: str | None) -> tuple[Work, ...]:
    counts = {Work.QUERY: queries, Work.AUTOVACUUM: vacuums, Work.REPLICATION: senders}
    return tuple(work for work, count in counts.items() if _count(count))


def _share(text: str) -> float:
    found = float(text)
    if math.isnan(found):
        raise ValueError("no share: nan")
    return min(max(found, 0.0), 1.0)


def _count(text: str | None) -> int:
    """A number of the guest's that fits 64 bits. Raises :class:`ValueError`."""
    found = int((text or "0")[:40])
    if not 0 <= found < 1 << 63:
        raise ValueError(f"no count: {found}")
    return found
