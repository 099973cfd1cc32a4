"""Python kernels: IPython's, forked from the zygote, spoken to with Jupyter's own client (messaging protocol 5.3)."""
# mypy: ignore-errors
# ruff: noqa: PTH100, PTH108, PTH120 - pathlib takes longer to import than all of this

import ast
import asyncio
import contextlib
import json
import os
import queue
import re
import signal
import socket
import sys
import uuid

from cells import Cell
from jupyter_client.asynchronous import AsyncKernelClient
from jupyter_client.connect import write_connection_file

DIRECTORY = os.environ.get("PANDASTACK_KERNELS", "/run/pandastack/kernels")
HERE = os.path.dirname(os.path.abspath(__file__))
READY_SECONDS = 120
REPLY_SECONDS = 60
BEGIN_SECONDS = 5
TOOLS = "__import__('sys').modules['pandastack_kernel_tools']"


class ZygoteEnded(Exception):
    """Somebody has killed it."""


class Zygote:
    """The process that kernels are forked from; one request at a time."""

    async def start(self):
        ours, theirs = socket.socketpair()
        os.set_inheritable(theirs.fileno(), True)
        command = f"exec {sys.executable} {HERE}/zygote.py 3<&{theirs.fileno()}"
        self._process = await asyncio.create_subprocess_shell(
            command, stdin=asyncio.subprocess.DEVNULL, pass_fds=[theirs.fileno()]
        )
        theirs.close()
        self._reader, self._writer = await asyncio.open_connection(sock=ours)
        self._turn = asyncio.Lock()
        if await self._reader.readline() != b"ready\n":
            raise RuntimeError("the zygote did not come up")

    async def fork(self, connection_file):
        """The process id of a new kernel."""
        async with self._turn:
            self._writer.write(json.dumps(connection_file).encode() + b"\n")
            answer = await self._reader.readline()
        if not answer:
            raise ZygoteEnded
        return int(answer)


class PythonKernel:
    """A running kernel with a client that is connected to it. ``cell`` gets what the kernel prints and shows."""

    @classmethod
    async def start(cls, zygote):
        kernel = cls()
        name = f"{DIRECTORY}/{uuid.uuid4().hex[:12]}"
        kernel._files = f"{name}.json"
        _, info = write_connection_file(kernel._files, ip=name, transport="ipc", key=os.urandom(32).hex().encode())
        kernel._sockets = [f"{name}-{info[port]}" for port in info if port.endswith("_port")]
        kernel._client = AsyncKernelClient()
        kernel._client.load_connection_info(info)
        kernel._pid = await zygote.fork(kernel._files)
        kernel._died = asyncio.Event()
        kernel._request, kernel._probes = None, set()
        kernel._began, kernel._over = asyncio.Event(), asyncio.Event()
        kernel._over.set()
        kernel._watch()
        kernel._client.start_channels(hb=False, stdin=False)
        await kernel._client.wait_for_ready(timeout=READY_SECONDS)
        await kernel._rehearse()
        kernel.cell = Cell()
        kernel._listener = asyncio.ensure_future(kernel._listen())
        return kernel

    async def _rehearse(self):
        """A first cell makes much that later ones find: nobody shall wait for that."""
        await self._reply(self._client.execute(f"{TOOLS}.rehearse(get_ipython())", silent=True, allow_stdin=False))

    def _watch(self):
        self._pidfd = os.pidfd_open(self._pid)
        asyncio.get_running_loop().add_reader(self._pidfd, self._ended)

    def _ended(self):
        asyncio.get_running_loop().remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._died.set()

    async def run(self, code):
        """Run a cell to its end; raises EOFError when the kernel died."""
        self._probes.clear()
        self._began.clear()
        self._over.clear()
        self._request = self._client.execute(code, allow_stdin=False, stop_on_error=False)
        async with contextlib.AsyncExitStack() as stack:
            tasks = [asyncio.ensure_future(each.wait()) for each in (self._over, self._died)]
            stack.push_async_callback(_cancel, tasks)
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if not self._over.is_set():
            raise EOFError
        if self.cell.error is None:
            await self._outcome()

    async def _listen(self):
        """Read all that the kernel publishes, also while no cell runs: it keeps only so much for a slow reader."""
        while True:
            # The user's code can publish too, and malformed messages.
            with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
                message = await self._client.get_iopub_msg(timeout=None)
                self._take(message["msg_type"], message["content"], message["parent_header"].get("msg_id"))

    def _take(self, kind, content, about):
        """Outputs belong to the cell at hand, whatever cell began the thread that they come from."""
        if kind == "stream":
            add = self.cell.stderr if content["name"] == "stderr" else self.cell.stdout
            add(content["text"].encode("utf-8", "replace"))
        elif kind in ("execute_result", "display_data", "update_display_data"):
            shown_as = content.get("transient", {}).get("display_id")
            self.cell.result(content["data"], shown_as, update=kind == "update_display_data")
        elif kind == "clear_output":
            self.cell.clear(content["wait"])
        elif about == self._request and not self._over.is_set():
            self._follow(kind, content)
        elif about in self._probes and not self._over.is_set() and content.get("execution_state") == "idle":
            self.cell.exit, self.cell.error = 1, self.cell.error or "KeyboardInterrupt"
            self._over.set()

    def _follow(self, kind, content):
        """How the cell that runs proceeds."""
        if kind == "execute_input":
            self._began.set()
        elif kind == "error" and (status := _exit_status(content)):
            self.cell.exit, self.cell.error = status, "\n".join(content["traceback"]) or content["ename"]
        elif kind == "status" and content["execution_state"] == "idle":
            self._over.set()

    async def _outcome(self):
        """How a cell that showed no error ended: an interrupt may end it without a word, but not as a success."""
        try:
            reply = await self._reply(self._request, 1)
        except queue.Empty:
            reply = {"status": "KeyboardInterrupt" if self._probes else "without an outcome"}
        if reply["status"] != "ok" and _exit_status(reply):
            self.cell.exit, self.cell.error = 1, reply["status"]

    async def _reply(self, request, seconds=REPLY_SECONDS):
        while True:
            message = await self._client.get_shell_msg(timeout=seconds)
            if message["parent_header"].get("msg_id") == request:
                return message["content"]

    async def variables(self):
        """What the user has named, as a list; see pandastack_kernel_tools."""
        expressions = {"all": f"{TOOLS}.variables(get_ipython())"}
        request = self._client.execute("", silent=True, user_expressions=expressions, allow_stdin=False)
        found = (await self._reply(request))["user_expressions"]["all"]
        return json.loads(ast.literal_eval(found["data"]["text/plain"]))

    async def interrupt(self):
        """Interrupt the cell. A kernel ignores it before the cell has begun, so that is waited for.

        One that comes while the kernel says that its cell is done eats that word: what the kernel does next, the answer
        to a question of ours, then says that the cell is over.
        """
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._began.wait(), BEGIN_SECONDS)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._pid, signal.SIGINT)
        self._probes.add(self._client.kernel_info())

    async def close(self):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._pid, signal.SIGKILL)
        await self._died.wait()
        await _cancel([self._listener])
        self._client.stop_channels()
        for path in (self._files, *self._sockets):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)


def _exit_status(error):
    """What a cell with an exception amounts to: ``sys.exit(0)`` ends it early, and is a success."""
    if error.get("ename") != "SystemExit":
        return 1
    said = error["evalue"]
    if said in ("", "None"):
        return 0
    return int(said) & 0xFF if re.fullmatch(r"-?\d{1,9}", said) else 1


async def _cancel(tasks):
    for each in tasks:
        each.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
