"""Code that a model wrote as a script: it leaves by sys.exit() and has a forgotten breakpoint(). The session goes on.

https://github.com/nteract/papermill/issues/536 (nteract/papermill#536): sys.exit(0) should stop the cell and nothing else.
https://github.com/jupyter-book/mystmd/issues/1978 (jupyter-book/mystmd#1978) and https://github.com/googlecolab/colabtools/issues/2164:
breakpoint() in a cell that nobody can talk to waits for ever. IPython: SystemExit ends the cell and the names stay; a
debugger without a terminal is an error, at once.
"""

import os
import signal
import sys
import time

from pandastack import Sandbox


LEAVE = """
import sys
rows = [1, 2, 3]
print("early")
if rows: sys.exit(0)
print("never")
"""


def trial():
    with Sandbox.create(template="code-interpreter", ttl_seconds=120) as sbx, sbx.create_code_context() as ctx:
        left = ctx.run_code(LEAVE, timeout_seconds=20)
        kept = ctx.run_code("sum(rows)", timeout_seconds=20)
        began = time.monotonic()
        stopped = ctx.run_code("def f(x):\n    breakpoint()\n    return x\nf(1)", timeout_seconds=30)
        waited = time.monotonic() - began
        again = ctx.run_code("len(rows)", timeout_seconds=20)
        got = [left.stdout, left.restarted, kept.text, stopped.restarted, waited < 20, again.text]
        return ["early\n", False, "6", False, True, "3"], got


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
