"""The warm process of a Python function: it imports the handler before the machine is captured, and answers one call in
each copy of the machine.

Started with a JSON object as its argument: ``root``, ``entrypoint``, ``name`` (None: found), ``socket``, ``output`` (a
directory for what is printed). It reports once on file descriptor 3, a JSON object: ``kind``, or ``traceback``.

A connection carries one request and one answer, each a length of four bytes (big endian) and a JSON object. A request
that wants a ``stream`` gets the answer of an application in frames of that form before (see ``pandastack_web``).
"""
# mypy: ignore-errors
# ruff: noqa: PTH100, PTH101, PTH103, PTH118, PTH119, PTH120, PTH122, PTH123 - pathlib takes longer to import than all of this

import ast
import contextlib
import gc
import importlib.util
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
import traceback

import pandastack_check
import pandastack_debug
import pandastack_frames
import pandastack_web
from pandastack_frames import Timeout

MOST_RESULT = 6 << 20
MOST_OUTPUT = 64 << 10
MOST_REQUEST = 32 << 20
MOST_VARIABLE = 100 << 10
NAMES = ("handler", "app", "application")
_NOT_THEIRS = (os.path.dirname(os.path.abspath(__file__)), "<frozen importlib")


class Refusal(Exception):
    """What a function did that it must not; the message is for its author."""


class Output:
    """What is printed, by this process and its children: two files in memory."""

    def __init__(self, directory):
        os.makedirs(directory, mode=0o700, exist_ok=True)
        self._files = {}
        for number, name in ((1, "stdout"), (2, "stderr")):
            file = os.open(os.path.join(directory, name), os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
            os.dup2(file, number)
            self._files[name] = file

    def clear(self):
        sys.stdout.flush()
        sys.stderr.flush()
        for file in self._files.values():
            os.ftruncate(file, 0)

    def close(self):
        for file in self._files.values():
            os.close(file)

    def size(self, name):
        return os.fstat(self._files[name]).st_size

    def last(self, name, most=MOST_OUTPUT):
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):  # closed by the function
                stream.flush()
        size = self.size(name)
        return os.pread(self._files[name], most, max(0, size - most)).decode(errors="replace")


def defined_names(tree):
    """The names that a module binds at its top level, also below ``if`` and ``try``."""
    found = set()
    todo = list(tree.body)
    while todo:
        node = todo.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found.update(each.id for target in targets for each in ast.walk(target) if isinstance(each, ast.Name))
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found.update((each.asname or each.name).partition(".")[0] for each in node.names)
        elif isinstance(node, ast.If | ast.Try | ast.With):
            todo += [*node.body, *getattr(node, "orelse", ()), *getattr(node, "finalbody", ())]
            todo += [each for handler in getattr(node, "handlers", ()) for each in handler.body]
    return found


class Function:
    """What was deployed. ``kind`` is ``handler``, ``wsgi``, ``asgi`` or ``script``."""

    def __init__(self, root, entrypoint, name):
        self.path = os.path.join(root, entrypoint)
        self._root, self._loop = root, None
        with open(self.path, "rb") as file:
            tree = ast.parse(file.read(), self.path)
        defined = defined_names(tree)
        chosen = name or next((each for each in NAMES if each in defined), None)
        self.failure = None
        if chosen is None:
            self.kind = "script"
            return
        target = getattr(self._import(), chosen, None)
        if not callable(target):
            raise Refusal(f"{entrypoint} has no function or application {chosen!r}")
        self.target = target
        self.kind = "handler" if chosen == "handler" else self._kind_of(target, bool(name))
        if self.kind != "handler":
            self.application = pandastack_web.Application(target, self.kind, self.loop())

    def _import(self):
        folder = os.path.dirname(self.path)
        sys.path[:1] = dict.fromkeys((folder, self._root))  # in place of the runtime's own directory
        stem = os.path.splitext(os.path.basename(self.path))[0]
        spec = importlib.util.spec_from_file_location(stem, self.path)
        module = sys.modules[stem] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    @staticmethod
    def _kind_of(target, is_named):
        import inspect

        takes_three = len(inspect.signature(target).parameters) == 3
        if inspect.isfunction(target):
            return "asgi" if takes_three else "handler" if is_named else "wsgi"
        return "asgi" if takes_three or inspect.iscoroutinefunction(type(target).__call__) else "wsgi"

    def loop(self):
        import asyncio

        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            asyncio.set_event_loop(self._loop)
        return self._loop

    def call(self, event, context):
        """What the handler returns."""
        result = self.target(event, context)
        if hasattr(result, "__await__"):
            result = self.loop().run_until_complete(_awaited(result))
        return result

    def run_script(self, text, seconds):
        """Run the program as a process of its own; its exit code."""
        given = os.memfd_create("input")
        os.write(given, text.encode())
        os.lseek(given, 0, os.SEEK_SET)
        argv = [sys.executable, os.path.relpath(self.path, self._root)]
        process = subprocess.Popen(argv, cwd=self._root, stdin=given, start_new_session=True)
        os.close(given)
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise Timeout from None


async def _awaited(value):
    return await value


class Context:
    """The second argument of a handler."""

    def __init__(self, given, seconds):
        self.function_id = given["function_id"]
        self.function_name = given["function_name"]
        self.function_version = str(given["version"])
        self.run_id = self.aws_request_id = given["run_id"]
        self.memory_limit_in_mb = given["memory_mb"]
        self.schedule = given.get("schedule")
        self.attempt = given.get("attempt", 1)
        self._end = time.monotonic() + seconds

    def get_remaining_time_in_millis(self):
        """How long the call may still take."""
        return max(0, int((self._end - time.monotonic()) * 1000))


def printed_traceback(error):
    """The traceback without lines that are not the function's."""
    told = traceback.TracebackException.from_exception(error)
    told.stack[:] = [each for each in told.stack if not each.filename.startswith(_NOT_THEIRS)]
    if isinstance(error, SyntaxError):
        told.stack.clear()
    return "".join(told.format())[-MOST_OUTPUT:].encode("utf-8", "replace").decode()


def plain(value):
    """What JSON has no word for."""
    for name in ("tolist", "isoformat"):
        if callable(getattr(value, name, None)):
            return getattr(value, name)()
    raise TypeError(f"the return value is not JSON: {type(value).__name__}")


def packed(result):
    """The result as JSON. Raises :class:`Refusal`."""
    try:
        text = json.dumps(result, default=plain, allow_nan=False, ensure_ascii=False)
        text.encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise Refusal(f"the return value is not JSON: {error}") from None
    if len(text) > MOST_RESULT:
        raise Refusal(f"the return value is over {MOST_RESULT} bytes")
    return text


def forget_copied():
    """What the standard library has drawn before the capture, besides the generators that know of copies."""
    uuid = sys.modules.get("uuid")
    if uuid is not None:
        uuid._last_timestamp = None
        uuid._node = int.from_bytes(os.urandom(6), "big") | 1 << 40


def reset_peak():
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
    except OSError:
        pass


def peak_mb():
    with contextlib.suppress(FileNotFoundError), open("/proc/self/status") as file:
        for line in file:
            if line.startswith("VmHWM:"):
                return round(int(line.split()[1]) / 1024, 1)
    return None


def cpu_seconds():
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def prepare(request):
    os.environ.update(request["env"])
    text = json.dumps(request["event"], ensure_ascii=False)
    if len(text.encode()) <= MOST_VARIABLE:
        os.environ["PANDASTACK_INPUT"] = text
    forget_copied()
    reset_peak()
    return text


def outcome(function, request, output, streamed):
    """What happens in a call: the fields of the answer that depend on it."""
    seconds = request["timeout_seconds"]
    text = prepare(request)
    if function.kind == "script":
        code = function.run_script(request.get("body", text), seconds)
        if code:
            return {"status": "error", "exit_code": code, "error": f"exit code {code}"}
        if output.size("stdout") > MOST_RESULT:
            raise Refusal(f"the output is over {MOST_RESULT} bytes")
        return {"status": "success", "exit_code": 0, "body": output.last("stdout", MOST_RESULT)}
    signal.signal(signal.SIGALRM, pandastack_frames.on_time_over)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        if function.kind == "handler":
            result = function.call(request["event"], Context(request["context"], seconds))
        else:
            result = function.application.respond(request["event"], streamed)
        if streamed is not None:
            return {"status": "success", "exit_code": 0}
        text = packed(result)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return {"status": "success", "exit_code": 0, "result": text}


def answer(function, request, output, streamed=None):
    began, before = time.monotonic(), cpu_seconds()
    try:
        made = outcome(function, request, output, streamed)
    except Timeout as error:
        made = {"status": "timeout", "error": "the time is over", "traceback": printed_traceback(error)}
        function.failure = error if request.get("keep") else None
    except (Refusal, pandastack_web.Broken) as error:
        made = {"status": "error", "exit_code": 1, "error": str(error)}
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
        made = {"status": "error", "exit_code": code, "error": f"the function called sys.exit({error.code!r})"}
    except BaseException as error:
        told = f"{type(error).__name__}: {error}"[:1000].encode("utf-8", "replace").decode()
        made = {"status": "error", "exit_code": 1, "error": told, "traceback": printed_traceback(error)}
        function.failure = error if request.get("keep") else None
    return {
        **made,
        "stdout": output.last("stdout"),
        "stderr": output.last("stderr"),
        "duration_ms": round((time.monotonic() - began) * 1000, 1),
        "cpu_seconds": round(cpu_seconds() - before, 3),
        "peak_memory_mb": peak_mb(),
    }


def check(root):
    """What this copy of the machine draws and holds, for a comparison with another copy; no handler runs."""
    forget_copied()
    return {"draws": pandastack_check.draws(), "values": pandastack_check.values(root)}


def serve_one(listener, function, output):
    connection, _ = listener.accept()
    with connection:
        try:
            (length,) = struct.unpack("!I", pandastack_frames.exactly(connection, 4))
            if length > MOST_REQUEST:
                return
            request = json.loads(pandastack_frames.exactly(connection, length))
        except EOFError:
            return
        if request.get("debug"):
            pandastack_debug.serve(connection, function.failure)
            return
        output.clear()
        streamed = None
        if request.get("stream") and function.kind in ("wsgi", "asgi"):
            streamed = pandastack_web.Streamed(pandastack_frames.Sending(connection))
        made = check(request["check"]) if "check" in request else answer(function, request, output, streamed)
        data = json.dumps(made, ensure_ascii=False).encode("utf-8", "replace")
        connection.sendall((streamed.waiting if streamed else b"") + struct.pack("!I", len(data)) + data)


def report(message):
    with os.fdopen(3, "w") as file:
        json.dump(message, file)


def main():
    given = json.loads(sys.argv[1])
    output = Output(given["output"])
    sys.argv[:] = [os.path.join(given["root"], given["entrypoint"])]
    os.chdir(given["root"])
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(given["socket"])
    os.chmod(given["socket"], 0o600)
    listener.listen(8)
    try:
        function = Function(given["root"], given["entrypoint"], given["name"])
    except (Refusal, pandastack_web.Broken) as error:
        report({"error": str(error), "traceback": str(error), "stderr": output.last("stderr")})
        return 1
    except BaseException as error:
        told = f"{type(error).__name__}: {error}"[:1000].encode("utf-8", "replace").decode()
        report({"error": told, "traceback": printed_traceback(error), "stderr": output.last("stderr")})
        return 1
    gc.collect()
    gc.freeze()
    connections = pandastack_check.sockets()
    report({"kind": function.kind, "sockets": connections} if connections else {"kind": function.kind})
    while True:
        try:
            serve_one(listener, function, output)
        except (OSError, ValueError, KeyError):  # the host has gone, or sent a malformed request
            continue


if __name__ == "__main__":
    sys.exit(main())
