"""A training loop that redraws itself: each round clears what the one before has shown.

https://github.com/posit-dev/positron/issues/10459 (posit-dev/positron#10459) and https://github.com/jupyter/nbconvert/pull/969
(jupyter/nbconvert#969): clients of kernels ignored the message, and every intermediate picture piled up. By Jupyter's
messaging specification the outputs so far are gone at the next output after clear_output(wait=True).
"""

import os
import signal
import sys

from pandastack import Sandbox


CELL = """
from IPython.display import clear_output, display
print("preparing")
for epoch in range(3):
    clear_output(wait=True)
    print("epoch", epoch)
    display({"text/plain": f"plot {epoch}"}, raw=True)
"""


def trial():
    with Sandbox.create(template="code-interpreter", ttl_seconds=120) as sbx, sbx.create_code_context() as ctx:
        ran = ctx.run_code(CELL)
        got = {"error": ran.error, "stdout": ran.stdout, "shown": [each.text for each in ran.results]}
        return {"error": None, "stdout": "epoch 2\n", "shown": ["plot 2"]}, got


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
