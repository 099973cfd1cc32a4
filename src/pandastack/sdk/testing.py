"""Functions in the process of a test: what a Python function's machine runs, without the machine.

The handler or application is imported and called by the program that does it in machines, so kinds, events, answers and
errors are the same. What is imported is that of the test's environment, and calls share its memory.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import importlib.util
import json
import os
import signal
import sys
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Self, cast
from urllib.parse import quote, urlsplit

from pandastack import in_guest
from pandastack.errors import BadRequestError
from pandastack.sdk._functions import FunctionRun

_PROGRAMS = Path(in_guest.__file__).parent / "functions"
_RUNTIME = "pandastack_function_runtime"


@dataclass(frozen=True, slots=True)
class LocalAnswer:
    """What an application answered. ``headers`` have lower-case names; of several with one name the last."""

    status: int
    headers: Mapping[str, str]
    content: bytes

    @property
    def text(self) -> str:
        """The content as UTF-8."""
        return self.content.decode()

    def json(self) -> Any:
        """The content, parsed."""
        return json.loads(self.content)


class LocalFunction:
    """A Python function: a handler, a WSGI or ASGI application, or a script. A context manager.

    ``entrypoint`` is ``FILE`` or ``FILE:NAME``, the file below ``root`` (by default the file's own folder). ``env`` is
    there during calls only. Raises what the file raises while it is imported, and :class:`BadRequestError` when it has
    no such function. Call it outside of event loops, and with a time limit in the main thread only.
    """

    def __init__(
        self,
        entrypoint: str | os.PathLike[str],
        *,
        root: str | os.PathLike[str] | None = None,
        env: Mapping[str, str] | None = None,
        timeout_seconds: float = 60.0,
    ) -> None:
        file, _, name = os.fspath(entrypoint).partition(":")
        path = Path(root or ".", file).resolve()
        self._root = path.parent if root is None else Path(root).resolve()
        self._env = dict(env or {})
        self._seconds = timeout_seconds
        self._runtime, self._web = _programs()
        self._function: Any = None
        self._before = list(sys.path)
        sys.path.insert(0, "")  # in place of this, the runtime puts the function's folders
        try:
            with contextlib.chdir(self._root):
                self._function = self._runtime.Function(
                    str(self._root), str(path.relative_to(self._root)), name or None
                )
        except BaseException as error:
            self.close()
            if isinstance(error, self._runtime.Refusal | self._web.Broken):
                raise BadRequestError(str(error), field="entrypoint") from error
            raise

    @property
    def kind(self) -> str:
        """What the file has: ``handler``, ``wsgi``, ``asgi`` or ``script``."""
        return str(self._function.kind)

    def invoke(self, input: Any = None) -> FunctionRun:
        """Call it with an event, and return the run as ``client.functions.invoke`` does, also one that failed."""
        run_id = str(uuid.uuid4())
        context = {
            "function_id": "local",
            "function_name": self._root.name,
            "version": 0,
            "run_id": run_id,
            "memory_mb": 0,
            "schedule": None,
        }
        event = json.loads(json.dumps(input))
        request = {"event": event, "env": self._env, "timeout_seconds": self._seconds, "context": context}
        with _printed(self._runtime) as output, _unchanged(), contextlib.chdir(self._root):
            answer = self._runtime.answer(self._function, request, output)
        result = answer.pop("result", None)
        answer.pop("body", None)
        run = {"id": run_id, "exit_code": None, **answer, "result": None if result is None else json.loads(result)}
        return cast(FunctionRun, run)

    def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        content: bytes = b"",
        json: Any = None,
    ) -> LocalAnswer:
        """Send a request to an application, and return its answer. Raises :class:`BadRequestError` when the call
        fails, with the traceback in ``detail``."""
        if self.kind not in ("wsgi", "asgi"):
            raise BadRequestError(f"a {self.kind} answers no requests: call invoke()")
        given = {name.lower(): text for name, text in (headers or {}).items()}
        if json is not None:
            content, given = _dumped(json), {"content-type": "application/json", **given}
        parts = urlsplit(url)
        path = quote(parts.path or "/", safe="/%:@!$&'()*+,;=-._~")
        run = self.invoke(self._web.request_event(method.upper(), path, parts.query, given, content))
        if run["status"] != "success":
            detail = {"traceback": run.get("traceback", ""), "stderr": run.get("stderr", "")}
            raise BadRequestError(f"the call failed: {run.get('error')}", detail=detail)
        result = run["result"]
        pairs = {name.lower(): text for name, text in result["headers"]}
        return LocalAnswer(result["statusCode"], pairs, base64.b64decode(result["body"]))

    def close(self) -> None:
        """Have the next function import its own modules: forget those of this one's folder."""
        sys.path[:] = self._before
        for name, module in list(sys.modules.items()):
            file = getattr(module, "__file__", None)
            if file is not None and Path(file).is_relative_to(self._root):
                del sys.modules[name]
        if self._function is not None and (loop := self._function._loop) is not None:
            _end_loop(loop)
            self._function._loop = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _dumped(value: Any) -> bytes:
    return json.dumps(value).encode()


def _programs() -> tuple[ModuleType, ModuleType]:
    """The program of machines and its module for applications, imported once."""
    if _RUNTIME not in sys.modules:
        spec = importlib.util.spec_from_file_location(_RUNTIME, _PROGRAMS / "runtime.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.path.insert(0, str(_PROGRAMS))  # where its modules are
        try:
            spec.loader.exec_module(module)
        finally:
            sys.path.remove(str(_PROGRAMS))
        sys.modules[_RUNTIME] = module
    return sys.modules[_RUNTIME], sys.modules["pandastack_web"]


def _end_loop(loop: asyncio.AbstractEventLoop) -> None:
    """End what an application has left running, such as its start-up task, and the loop."""
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
    loop.close()
    asyncio.set_event_loop(None)


@contextlib.contextmanager
def _printed(runtime: ModuleType) -> Iterator[Any]:
    """What is printed meanwhile, by this process and its children, instead of being printed."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        for number in (1, 2):
            before = os.dup(number)
            stack.callback(os.close, before)
            stack.callback(os.dup2, before, number)
        output = runtime.Output(folder)
        stack.callback(output.close)
        for number, redirect in ((1, contextlib.redirect_stdout), (2, contextlib.redirect_stderr)):
            stream = stack.enter_context(open(number, "w", buffering=1, encoding="utf-8", closefd=False))
            stack.enter_context(redirect(stream))
        yield output


@contextlib.contextmanager
def _unchanged() -> Iterator[None]:
    """Put the environment, and the timer that limits a call, back to what they were."""
    environment, timer = dict(os.environ), signal.getitimer(signal.ITIMER_REAL)
    handler = signal.getsignal(signal.SIGALRM)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(environment)
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, *timer)
