"""Kernels for code, kept inside the guest: sessions of Python, bash and Node behind one Unix socket.

It is started when a template is baked and stays in its snapshot, with one Python kernel that waits for its first
session: opening one costs no more than a message, and the next kernel is made in the background.

Protocol: a connection carries one request, a JSON object on a line, and gets one answer of the same kind. ``run`` says
``{"started": true}`` on a line of its own first, since it may have to wait for the cell before. An ``error`` comes with
a ``code``. Sessions belong to the machine's memory: they live through hibernation, and a copy of the machine has them.
"""
# mypy: ignore-errors
# ruff: noqa: PTH103, PTH104 - pathlib takes longer to import than all of this

import asyncio
import json
import os
import signal
import sys
import time

from cells import Cell
from shell import PROGRAMS, ShellKernel

try:
    import python
except ImportError:  # no IPython in this template
    python = None

DIRECTORY = os.environ.get("PANDASTACK_KERNELS", "/run/pandastack/kernels")
SOCKET = f"{DIRECTORY}.sock"
SESSIONS_MAX = 8
REQUEST_MAX = 16 << 20
INTERRUPT_SECONDS = (2, 3, 5)
"""How long to wait after each interrupt of a cell that is over its time; then its kernel is replaced. A kernel that
gets another one while it still renders the traceback of the first may lose more than the cell, and under emulation it
renders for a second."""


class Refusal(Exception):
    """What a request cannot have; ``code`` is for programs."""

    def __init__(self, code, message):
        super().__init__(message)
        self.code = code


class Kernels:
    """Makes kernels, one of Python's ahead of need."""

    def __init__(self):
        self._next = None

    async def start(self):
        if python:
            self._zygote = python.Zygote()
            await self._zygote.start()
            self.replenish()
            await asyncio.shield(self._next)

    def replenish(self):
        """Have one ready or on its way. Called when a cell is done: while one runs, it shall have the processors."""
        if python and self._next is None:
            self._next = asyncio.ensure_future(python.PythonKernel.start(self._zygote))

    async def take(self, language):
        if language in PROGRAMS:
            try:
                return await ShellKernel.start(language)
            except FileNotFoundError:
                raise Refusal("missing", f"{language} is not installed") from None
        if not python:
            raise Refusal("missing", "IPython is not installed")
        self.replenish()
        kernel, self._next = self._next, None
        try:
            return await kernel
        except python.ZygoteEnded:
            await self.start()
            return await self.take(language)


class Session:
    """A language with its state, in which one cell runs at a time."""

    def __init__(self, name, language, kernel):
        self.name, self.language, self.kernel = name, language, kernel
        self.created_at, self.cells = time.time(), 0
        self.turn = asyncio.Lock()

    def record(self):
        return {"id": self.name, "language": self.language, "created_at": self.created_at, "cells": self.cells}


class Server:
    def __init__(self):
        self._kernels, self._sessions = Kernels(), {}
        self._opening = 0

    async def start(self):
        await self._kernels.start()
        server = await asyncio.start_unix_server(self._serve, f"{SOCKET}.new", limit=REQUEST_MAX)
        os.rename(f"{SOCKET}.new", SOCKET)  # a socket is bound before it listens: nobody finds it in between
        return server

    async def _serve(self, reader, writer):
        def say(message):
            writer.write(json.dumps(message).encode() + b"\n")

        try:
            say(await self._answer(await reader.readline(), say))
            await writer.drain()
        except (ConnectionError, ValueError):  # the host has gone, or asked what is no request
            pass
        finally:
            writer.close()

    async def _answer(self, line, say):
        try:
            request = json.loads(line)
            operations = (self._open, self._list, self._run, self._close, self._interrupt, self._variables)
            named = {each.__name__[1:]: each for each in operations}
            return await named[request["op"]](request, say)
        except Refusal as error:
            return {"error": str(error), "code": error.code}
        except (ValueError, KeyError, TypeError) as error:
            return {"error": f"malformed request: {error!r}", "code": "malformed"}
        except Exception as error:
            return {"error": f"{type(error).__name__}: {error}", "code": "failed"}

    def _session(self, request):
        try:
            return self._sessions[request["id"]]
        except KeyError:
            raise Refusal("not_found", "no such session") from None

    async def _open(self, request, say):
        if request["language"] not in ("python", *PROGRAMS):
            raise Refusal("unsupported", "no such language")
        if len(self._sessions) + self._opening >= SESSIONS_MAX:
            raise Refusal("too_many", f"a sandbox has at most {SESSIONS_MAX} sessions")
        self._opening += 1
        try:
            kernel = await self._kernels.take(request["language"])
        finally:
            self._opening -= 1
        session = Session(request["id"], request["language"], kernel)
        self._sessions[session.name] = session
        return session.record()

    async def _list(self, request, say):
        return {"sessions": [each.record() for each in self._sessions.values()]}

    async def _close(self, request, say):
        session = self._session(request)
        del self._sessions[session.name]
        await session.kernel.close()
        return {}

    async def _interrupt(self, request, say):
        session = self._session(request)
        if not session.turn.locked():
            return {"interrupted": False}
        await session.kernel.interrupt()
        return {"interrupted": True}

    async def _variables(self, request, say):
        session = self._session(request)
        async with session.turn:
            return {"variables": await session.kernel.variables()}

    async def _run(self, request, say):
        session = self._session(request)
        async with session.turn:
            say({"started": True})
            session.cells += 1
            began, kernel = time.monotonic(), session.kernel
            cell = kernel.cell
            try:
                await self._within(kernel, request, cell)
                kernel.cell = Cell()
            except EOFError:
                cell.restarted = True
                cell.error = cell.error or "the interpreter exited; the session continues with a new one"
                cell.exit = cell.exit or 1
                await self._replace(session)
            self._kernels.replenish()
            duration = round((time.monotonic() - began) * 1000)
            return {**cell.answer(), "duration_ms": duration, "cells": session.cells}

    async def _within(self, kernel, request, cell):
        """Run the cell; over its time it is interrupted, and if that does not end it, its interpreter is."""
        running = asyncio.ensure_future(kernel.run(request["code"]))
        try:
            await asyncio.wait([running], timeout=request["timeout_ms"] / 1000)
            for patience in INTERRUPT_SECONDS:
                if running.done():
                    break
                cell.timed_out = True
                await kernel.interrupt()
                await asyncio.wait([running], timeout=patience)
            if not running.done():
                raise EOFError
            await running
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    async def _replace(self, session):
        old, session.kernel = session.kernel, await self._kernels.take(session.language)
        await old.close()


async def main():
    os.makedirs(DIRECTORY, mode=0o700, exist_ok=True)
    server = await Server().start()
    await server.serve_forever()


if __name__ == "__main__":
    # A shell that starts us in the background leaves interrupts ignored, and our kernels would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(asyncio.run(main()))
