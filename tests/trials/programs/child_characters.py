"""A program that a cell has started writes text of three-byte characters, more than fits into one read of a pipe.

https://github.com/lablup/backend.ai-agent/issues/33 (lablup/backend.ai-agent#33) and https://github.com/ipython/ipykernel/issues/1130
(ipython/ipykernel#1130): a kernel that decodes each piece for itself turns characters at the borders into U+FFFD, or loses all that follows.
What a cell prints itself, what its child prints and what a command prints is the same text. Bytes that are no text at all cost
only themselves.
"""

import os
import signal
import sys

from pandastack import Sandbox


TEXT = "\u65e5\u672c\u8a9e" * 5000
CHILD = "import subprocess, sys\nNAME = subprocess.run([sys.executable, '-c', PROGRAM], check=True).returncode"
PRINT = "import sys; sys.stdout.reconfigure(encoding='utf-8'); print('\\u65e5\\u672c\\u8a9e' * 5000)"
BROKEN = "import sys; sys.stdout.buffer.write(b'one\\n\\xff\\xfe\\ntwo\\n')"


def verdict(text):
    return "same" if text == TEXT + "\n" else f"{len(text)} characters, {text.count(chr(0xFFFD))} of them U+FFFD"


def trial():
    with Sandbox.create(template="code-interpreter", ttl_seconds=120) as sbx, sbx.create_code_context() as ctx:
        own = ctx.run_code(PRINT.replace("; sys.stdout.reconfigure(encoding='utf-8')", ""), timeout_seconds=30)
        child = ctx.run_code(CHILD.replace("PROGRAM", repr(PRINT)).replace("NAME", "code"), timeout_seconds=40)
        sbx.filesystem.write("/workspace/print.py", PRINT)
        command = sbx.exec("python3 /workspace/print.py", timeout_seconds=30)
        broken = ctx.run_code(CHILD.replace("PROGRAM", repr(BROKEN)).replace("NAME", "code"), timeout_seconds=40)
        got = {"own": verdict(own.stdout), "child": verdict(child.stdout), "exec": verdict(command.stdout)}
        got["broken"] = (broken.stdout.startswith("one\n"), broken.stdout.endswith("two\n"))
        return {"own": "same", "child": "same", "exec": "same", "broken": (True, True)}, got


def late(*_):
    print("FAIL: expected an answer within 90 s, got none", flush=True)
    os._exit(1)


signal.signal(signal.SIGALRM, late)
signal.alarm(90)
try:
    want, got = trial()
except Exception as error:
    want, got = "no exception", f"{type(error).__name__}: {error}"
print(f"PASS: {got!r}"[:300] if got == want else f"FAIL: expected {want!r}, got {got!r}"[:900])
sys.exit(got != want)
