"""Processes of a sandbox."""

from __future__ import annotations

from typing import Self

from pydantic import Field, StrictBool

from pandastack.api.models.base import Answer, Body, Number, WholeNumber, timestamp_or_none
from pandastack.contract import processes
from pandastack.contract.processes import ProcessList, ProcessRecord

_BLOCK_BYTES = 512


class StartProcess(Body):
    cmd: str = Field("", description="Shell command for `sh -c`", examples=["make test"])
    id: str | None = Field(None, description="A UUID; absent: a new one")
    background: StrictBool | None = Field(None, description="The process does not count as activity of the sandbox")
    cwd: str | None = None
    env: dict[str, str] | None = None
    user: str | None = Field(None, description="Name or `uid:gid`; default root")
    stdin: StrictBool | None = Field(None, description="Leave standard input open for `…/stdin`; otherwise it is empty")
    pty: StrictBool | None = Field(None, description="Run it in a terminal of its own")
    rows: WholeNumber | None = None
    cols: WholeNumber | None = None
    timeout_seconds: Number | None = Field(None, description="0 or absent: no limit")


class SignalProcess(Body):
    signal: int | str = Field("TERM", description="Name or number")


class ResizeTerminal(Body):
    rows: WholeNumber = 0
    cols: WholeNumber = 0


class WaitProcess(Body):
    timeout_seconds: Number | None = Field(None, description="How long to wait; default 25, at most 3600")


class Extent(Answer):
    start: int = Field(description="Offset of the first retained byte")
    end: int = Field(description="Bytes written in total")

    @classmethod
    def of(cls, kept: processes.Extent) -> Self:
        return cls(start=kept.base, end=kept.end)


class ProcessUsage(Answer):
    cpu_user_ms: int
    cpu_system_ms: int
    peak_rss_kb: int
    read_bytes: int
    written_bytes: int

    @classmethod
    def of(cls, record: ProcessRecord) -> Self:
        return cls(
            cpu_user_ms=record.utime_us // 1000,
            cpu_system_ms=record.stime_us // 1000,
            peak_rss_kb=record.maxrss_kb,
            read_bytes=record.read_blocks * _BLOCK_BYTES,
            written_bytes=record.written_blocks * _BLOCK_BYTES,
        )


class Process(Answer):
    id: str
    pid: int
    cmd: str
    cmd_truncated: bool
    user: str
    status: str = Field(description="`running` or `exited`")
    exit_code: int | None
    signal: int | None
    timed_out: bool
    cancelled: bool
    inherited: bool = Field(description="It was started in the sandbox that this one was forked from")
    background: bool
    pty: bool
    rows: int | None
    cols: int | None
    stdin_open: bool
    started_at: str | None = Field(description="By the guest's clock; null: not a valid date")
    duration_ms: int
    timeout_seconds: float | None
    usage: ProcessUsage | None = Field(description="Null while it runs")
    output: dict[str, Extent]

    @classmethod
    def of(cls, record: ProcessRecord) -> Self:
        """A process as its guest reports it."""
        return cls(
            id=record.id,
            pid=record.pid,
            cmd=record.cmd,
            cmd_truncated=record.cmd_cut,
            user=record.user,
            status="running" if record.running else "exited",
            exit_code=record.exit_code,
            signal=record.signal or None,
            timed_out=record.timed_out,
            cancelled=record.cancelled,
            inherited=record.inherited,
            background=record.background,
            pty=record.pty,
            rows=record.rows or None,
            cols=record.columns or None,
            stdin_open=record.stdin_open,
            started_at=timestamp_or_none(record.started_at),
            duration_ms=record.duration_us // 1000,
            timeout_seconds=record.timeout_s,
            usage=None if record.running else ProcessUsage.of(record),
            output={"stdout": Extent.of(record.stdout), "stderr": Extent.of(record.stderr)},
        )


class Retention(Answer):
    records: int = Field(description="Most exited processes that are remembered")
    bytes: int = Field(description="Most output of exited processes that is retained")
    age_seconds: int
    bytes_per_stream: int
    forgotten: int = Field(description="Records dropped so far to make room")


class Processes(Answer):
    processes: list[Process]
    retention: Retention

    @classmethod
    def of(cls, found: ProcessList, bytes_per_stream: int) -> Self:
        """All processes of a sandbox, and how long they are remembered."""
        kept = found.retention
        return cls(
            processes=[Process.of(each) for each in found.processes],
            retention=Retention(
                records=kept.records,
                bytes=kept.bytes,
                age_seconds=kept.age_s,
                bytes_per_stream=bytes_per_stream,
                forgotten=kept.forgotten,
            ),
        )


class Taken(Answer):
    bytes: int = Field(description="Bytes accepted by the process's standard input")
