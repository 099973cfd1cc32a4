"""A thread that a cell has started goes on printing: while no cell runs, and while the next one does.

https://github.com/ipython/ipykernel/issues/1289 (ipython/ipykernel#1289) and https://github.com/Ulm-IQO/qudi-legacy/pull/539
(Ulm-IQO/qudi-legacy#539): output of background threads was lost once the cell that started them had ended. Where it shows
may differ (the cell that began the thread, or the one that runs then), but in a notebook every line shows once.
"""

import os
import signal
import sys
import time

from pandastack import Sandbox


BEGIN = """
import threading, time
def work():
    for i in range(8):
        print("tick", i, flush=True)
        time.sleep(0.5)
worker = threading.Thread(target=work)
worker.start()
"""


def trial():
    with Sandbox.create(template="code-interpreter", ttl_seconds=120) as sbx, sbx.create_code_context() as ctx:
        first = ctx.run_code(BEGIN)
        time.sleep(2)  # nothing runs; about four more lines are printed
        second = ctx.run_code("worker.join(); time.sleep(0.5)")
        third = ctx.run_code("None")
        shown = [line for ran in (first, second, third) for line in ran.stdout.splitlines()]
        return [f"tick {i}" for i in range(8)], sorted(shown)


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
