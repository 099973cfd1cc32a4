"""Programs as kernels: bash and Node, each in a loop that reads the path of a file with a cell's code, runs it in the
state that the cells before have left, and answers with a line: a number, its status, or JSON (see loop.js)."""
# mypy: ignore-errors
# ruff: noqa: PTH100, PTH118, PTH120 - pathlib takes longer to import than all of this

import array
import asyncio
import contextlib
import fcntl
import json
import os
import signal
import tempfile
import termios

from cells import Cell

# `return` in the trap ends the file that is being sourced, and with it the cell.
_LOOP = """
trap 'return 130 2>/dev/null' INT
while IFS= read -r __pandastack_cell <&{code}; do
  . "$__pandastack_cell" </dev/null {code}<&- {status}>&-
  printf '%s\\n' "$?" >&{status}
done
"""


def _bash(code, status):
    return ["bash", "--noprofile", "--norc", "-c", _LOOP.format(code=code, status=status)]


def _node(code, status):
    return ["node", os.path.join(os.path.dirname(os.path.abspath(__file__)), "loop.js"), str(code), str(status)]


PROGRAMS = {"bash": _bash, "node": _node}


class ShellKernel:
    """A running loop. ``cell`` gets what it prints, and what its background jobs print while no cell runs."""

    @classmethod
    async def start(cls, language):
        """Raises FileNotFoundError when there is no such program."""
        kernel = cls()
        code, kernel._code = os.pipe()
        kernel._status, status = os.pipe()
        kernel._out, out = os.pipe()
        kernel._err, err = os.pipe()
        try:
            kernel._process = await asyncio.create_subprocess_exec(
                *PROGRAMS[language](code, status),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                pass_fds=(code, status),
                start_new_session=True,
                cwd=os.environ.get("HOME") or "/",
            )
        except OSError:
            kernel._close_pipes()
            raise
        finally:
            for each in (code, status, out, err):
                os.close(each)
        for each in (kernel._status, kernel._out, kernel._err):
            os.set_blocking(each, False)
        kernel.cell = Cell()
        for each in (kernel._out, kernel._err):
            asyncio.get_running_loop().add_reader(each, kernel._take, each)
        return kernel

    async def run(self, code):
        """Run a cell to its end; raises EOFError when the shell ended, with its status in the cell."""
        loop, done = asyncio.get_running_loop(), asyncio.get_running_loop().create_future()
        self._said = bytearray()
        with tempfile.NamedTemporaryFile("w", prefix="cell-") as file:
            file.write(code + "\n")
            file.flush()
            loop.add_reader(self._status, self._ended, done)
            try:
                os.write(self._code, file.name.encode() + b"\n")
                status = await self._status_of(done)
            except BrokenPipeError:
                status = None
            finally:
                self._rest(self._out)
                self._rest(self._err)
                loop.remove_reader(self._status)
        if status is None:
            self.cell.exit = _shell_status(await self._process.wait())
            raise EOFError
        _tell(status, self.cell)

    async def _status_of(self, done):
        """The cell's status, or None when the shell ends: a job that it leaves may hold its pipe open."""
        ended = asyncio.ensure_future(self._process.wait())
        try:
            await asyncio.wait([done, ended], return_when=asyncio.FIRST_COMPLETED)
            return done.result() if done.done() else None
        finally:
            ended.cancel()

    def _ended(self, done):
        with contextlib.suppress(BlockingIOError):
            text = os.read(self._status, 65536)
            self._said += text
            if not done.done() and (not text or self._said.endswith(b"\n")):
                done.set_result(bytes(self._said) or None)

    def _take(self, fd):
        with contextlib.suppress(BlockingIOError):
            data = os.read(fd, 65536)
            if data:
                (self.cell.stdout if fd == self._out else self.cell.stderr)(data)
                return len(data)
            asyncio.get_running_loop().remove_reader(fd)  # the shell closed it
        return 0

    def _rest(self, fd):
        """What the pipe held when the cell ended; what a job in the background adds later belongs to the next cell."""
        held = array.array("i", [0])
        fcntl.ioctl(fd, termios.FIONREAD, held)
        left = held[0]
        while left > 0 and (taken := self._take(fd)):
            left -= taken

    async def variables(self):
        return []

    async def interrupt(self):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGINT)

    async def close(self):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        await self._process.wait()
        self._close_pipes()

    def _close_pipes(self):
        for fd in (self._out, self._err):
            asyncio.get_running_loop().remove_reader(fd)
        for fd in (self._code, self._status, self._out, self._err):
            os.close(fd)


def _tell(line, cell):
    """What a loop answered, for the cell."""
    said = json.loads(line)
    if isinstance(said, int):
        said = {"status": said}
    cell.exit, cell.error = said["status"], said.get("error")
    if "value" in said:
        cell.result({"text/plain": said["value"]})


def _shell_status(code):
    return 128 - code if code < 0 else code
