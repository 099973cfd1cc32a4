"""A cell starts a program that writes a lot to both outputs in turns, and the cell ends when that program does.

https://github.com/ipython/ipykernel/issues/847 (ipython/ipykernel#847): since a kernel reads what its children write through
pipes, a talkative child stalled the cell for ever, or its last lines came when the cell had been declared done. A notebook
shows every line. Both outputs are far below the documented limit of 1 MiB, so each must be here, whole and in order.
"""

import os
import signal
import sys

from pandastack import Sandbox


CELL = """
import subprocess, sys
child = "import sys\\nfor i in range(20000): print('out', i); print('err', i, file=sys.stderr)"
subprocess.run([sys.executable, "-c", child], check=True).returncode
"""


def trial():
    with Sandbox.create(template="code-interpreter", ttl_seconds=120) as sbx, sbx.create_code_context() as ctx:
        ran = ctx.run_code(CELL, timeout_seconds=60)
        got = {"value": ran.text, "error": ran.error}
        for name, text in (("out", ran.stdout), ("err", ran.stderr)):
            whole = "".join(f"{name} {i}\n" for i in range(20000))
            last = text.rstrip("\n").rpartition("\n")[2]
            got[name] = (
                "all lines" if text == whole else f"{text.count(chr(10))} of 20000 lines, the last is {last[:40]!r}"
            )
        return {"value": "0", "error": None, "out": "all lines", "err": "all lines"}, got


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
