"""Commands and processes in a guest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pandastack.contract.fields import Cells, Count, NonEmpty, Seconds, SignalNumber, Uuid


@dataclass(frozen=True, slots=True)
class TerminalSize:
    """The size of a terminal in characters."""

    rows: Cells
    columns: Cells


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandSpec:
    """A line for the guest's shell. ``cwd`` None is the user's home, ``user`` None is root.

    With an ``id`` the guest keeps a record, and retains the last ``keep_bytes`` of each output: with ``spool`` from the
    first byte on, otherwise from the moment when it has no reader any more.
    """

    cmd: NonEmpty
    id: Uuid | None = None
    timeout_seconds: Seconds | None = None
    cwd: str | None = None
    user: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    keep_bytes: Count = 0
    spool: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecSpec(CommandSpec):
    """A command whose output is streamed to its caller. ``stdin`` None is /dev/null.

    With ``leave`` and an ``id`` it keeps running when its reader disconnects; otherwise it is killed then.
    """

    stdin: bytes | None = None
    leave: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessSpec(CommandSpec):
    """A command that runs whether or not a client reads its output. With ``stdin_open`` it can be written to.

    ``terminal`` gives it a terminal instead of pipes.
    """

    id: Uuid
    stdin_open: bool = False
    background: bool = False
    terminal: TerminalSize | None = None


@dataclass(frozen=True, slots=True)
class Extent:
    """The retained part of an output: bytes ``base`` up to ``end``, counted from the first byte ever written."""

    base: int
    end: int


@dataclass(frozen=True, slots=True)
class ProcessRecord:
    """A process as the guest remembers it. Times are the guest's; ``blocks`` are of 512 bytes.

    ``inherited``: it was started in the machine that this one is a copy of. ``exit_code`` is None while it runs.
    """

    id: str
    pid: int
    cmd: str
    user: str
    started_at: float
    running: bool
    exit_code: int | None
    signal: int
    timed_out: bool
    cancelled: bool
    pty: bool
    background: bool
    stdin_open: bool
    inherited: bool
    cmd_cut: bool
    timeout_s: float | None
    duration_us: int
    utime_us: int
    stime_us: int
    maxrss_kb: int
    read_blocks: int
    written_blocks: int
    stdout: Extent
    stderr: Extent
    rows: int
    columns: int


@dataclass(frozen=True, slots=True)
class Retention:
    """The limits of what the guest retains of ended processes, and the number of records it has dropped."""

    records: int
    bytes: int
    age_s: int
    forgotten: int


@dataclass(frozen=True, slots=True)
class ProcessList:
    """All records of a guest, oldest first."""

    processes: tuple[ProcessRecord, ...]
    retention: Retention


@dataclass(frozen=True, slots=True)
class SendSignal:
    """Asks for a signal to a process's group."""

    signal: SignalNumber


@dataclass(frozen=True, slots=True)
class InputTaken:
    """How many bytes a process's standard input accepted."""

    bytes: int
