"""Every number and operation of the channel's protocol by name (docs/design/0001, 0012 and 0018).

The agent has the same names in ``guest-agent/src/proto.h``; ``tests/guest/test_keys.py`` compares the two.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag, StrEnum

VERSION = 3
"""The protocol version of today's agent."""
SUPPORTED = frozenset((VERSION,))
"""The versions that a server speaks: those of all machines that it can restore (``snapshots/manifest.py``, FORMAT)."""


class FrameType(IntEnum):
    """Types of frames. Each but DATA, EOF and CREDIT has a fixed direction (host to guest or back)."""

    PAD = 0
    HELLO = 1
    RESUME = 2
    RESUMED = 3
    QUIESCE = 4
    QUIET = 5
    PING = 6
    PONG = 7
    THAW = 8
    OPEN = 16
    DATA = 17
    DATA_ERR = 18
    EOF = 19
    CREDIT = 20
    SIGNAL = 21
    RESULT = 22
    AT = 23
    RESIZE = 24
    OPENED = 25


class Operation(StrEnum):
    """The operation that an OPEN requests."""

    EXEC = "exec"
    START = "start"
    REHEARSE = "rehearse"
    ATTACH = "attach"
    INPUT = "input"
    PROCESSES = "processes"
    SIGNAL = "signal"
    READ = "read"
    WRITE = "write"
    STAT = "stat"
    LIST = "list"
    DELETE = "delete"
    MKDIR = "mkdir"
    SYNC = "sync"
    CHANGES = "changes"
    REMEMBER = "remember"
    TUNNEL = "tunnel"
    LISTEN = "listen"
    VOLUME = "volume"


class HelloKey(IntEnum):
    """The fields of a booted guest's HELLO."""

    VERSION = 1


class ResumeKey(IntEnum):
    """The identity in a RESUME. Guests ignore PADDING: see :func:`pandastack.guest.identity.resume_payload`."""

    NONCE = 1
    TIME_NS = 2
    ENTROPY = 3
    GENERATION = 4
    HOSTNAME = 5
    MACHINE_ID = 6
    ENV = 7
    FROZEN = 9
    CONTINUES = 10
    CPUS = 11
    MEMORY_MB = 12
    DISK_MB = 13
    CONNECTED = 14
    PADDING = 255


class ResumedKey(IntEnum):
    """The fields of the answer to a RESUME."""

    NONCE = 1
    ERROR = 2
    VERSION = 3


class OpenedKey(IntEnum):
    """The fields of the answer that an operation has begun."""

    CONSUMED = 1


class OpenKey(IntEnum):
    """The arguments of an operation."""

    OP = 1
    PATH = 2
    ARGV = 3
    CMD = 4
    SCRIPT_BYTES = 5
    CWD = 6
    ENV = 7
    USER = 8
    TIMEOUT_MS = 9
    STDIN = 10
    OFFSET = 11
    LENGTH = 12
    MODE = 13
    PORT = 14
    ID = 32
    FLAGS = 33
    ROWS = 34
    COLS = 35
    ERR_OFFSET = 36
    SIGNAL = 37
    KEEP = 38
    RECEIVED = 39
    PLACE = 40


class OpenFlag(IntFlag):
    """The bits of ``OpenKey.FLAGS``: how a process is run and watched, and how a volume is mounted."""

    BACKGROUND = 1
    SPOOL = 2
    FOLLOW = 4
    STDOUT = 8
    STDERR = 16
    CLOSE = 32
    READ_ONLY = 64


class ResultKey(IntEnum):
    """The outcome of an operation; ENTRY, RECORD and TUNNEL come as data."""

    ERRNO = 1
    MESSAGE = 2
    EXIT_CODE = 3
    SIGNAL = 4
    TIMED_OUT = 5
    DURATION_US = 6
    UTIME_US = 7
    STIME_US = 8
    MAXRSS_KB = 9
    BYTES = 10
    ENTRY = 11
    RECORD = 32
    MAX_RECORDS = 33
    MAX_BYTES = 34
    MAX_AGE_S = 35
    FORGOTTEN = 36
    TUNNEL = 37


class RecordKey(IntEnum):
    """The record of a process."""

    ID = 1
    PID = 2
    STARTED_NS = 3
    FLAGS = 4
    EXIT_CODE = 5
    SIGNAL = 6
    DURATION_US = 7
    UTIME_US = 8
    STIME_US = 9
    MAXRSS_KB = 10
    READ_BLOCKS = 11
    WRITTEN_BLOCKS = 12
    OUT_BASE = 13
    OUT_END = 14
    ERR_BASE = 15
    ERR_END = 16
    CMD = 17
    USER = 18
    TIMEOUT_MS = 19
    ROWS = 20
    COLS = 21


class RecordFlag(IntFlag):
    """The bits of ``RecordKey.FLAGS``."""

    RUNNING = 1
    TIMED_OUT = 2
    CANCELLED = 4
    PTY = 8
    BACKGROUND = 16
    INPUT = 32
    INHERITED = 64
    CMD_CUT = 128


class Signal(IntEnum):
    """What a SIGNAL frame carries besides the numbers of real signals (1 to 64)."""

    CANCEL = 0
    """Ends the stream, and what belongs to that stream alone."""
    LEAVE = 255
    """Ends a view, but not its process."""


class EntryKey(IntEnum):
    """A file in a list or in the answer to a stat."""

    NAME = 1
    TYPE = 2
    SIZE = 3
    MODE = 4
    MTIME = 5
    UID = 6
    GID = 7
    MTIME_NS = 8
    CTIME_NS = 9
    INODE = 10
    TARGET = 11
    DEVICE = 12
    BELOW = 14
