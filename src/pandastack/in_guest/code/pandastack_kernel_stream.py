"""The standard streams of a Python kernel: what its children write is text as well, whole and in order."""
# mypy: ignore-errors

import array
import codecs
import fcntl
import os
import select
import termios
import threading

from ipykernel.iostream import OutStream


class PipedStream(OutStream):
    """A stream whose file descriptor is a pipe, for programs that the kernel starts and libraries in C.

    ipykernel reads the pipe in a thread that decodes each piece for itself, and that may be late: the cell is over, or
    has printed more. Here a character may come in pieces, and the pipe is emptied before the kernel's own next word.
    """

    def __init__(self, *arguments, **options):
        self._pipe = threading.RLock()
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        super().__init__(*arguments, **options)

    def write(self, string):
        self._take()
        return super().write(string)

    def flush(self):
        self._take()
        super().flush()

    def _watch_pipe_fd(self):
        while select.select([self._fid], [], [])[0]:
            self._take()

    def _take(self):
        """Move what the pipe holds now into the stream."""
        if self._fid is None or os.getpid() != self._master_pid:  # a fork shares the pipe, and does not read it
            return
        held = array.array("i", [0])
        with self._pipe:
            fcntl.ioctl(self._fid, termios.FIONREAD, held)
            left = held[0]
            while left:
                data = os.read(self._fid, left)
                left -= len(data)
                super().write(self._decoder.decode(data))
