"""A generated program carries its data in its source and is longer than one argument of a program may be (128 KiB).

https://github.com/daytonaio/daytona/pull/3918 (daytonaio/daytona#3918), https://github.com/cheatcode-ai/cheatcode/pull/172 and
https://github.com/langchain-ai/deepagents/pull/872: running it failed, since it was passed as an argument. An interpreter reads programs of
any length. Here as one piece of code in Python and in bash, and as a cell of a session.
"""

import os
import signal
import sys

from pandastack import Sandbox


def trial():
    data = "x" * 300_000
    want = {"python": "300000\n", "bash": "300000\n", "cell": "300000\n"}
    with Sandbox.create(template="code-interpreter", ttl_seconds=120) as sbx:
        runs = {
            "python": lambda: sbx.run_code(f"data = '{data}'\nprint(len(data))"),
            "bash": lambda: sbx.run_code(f"data={data}\necho ${{#data}}", language="bash"),
            "cell": lambda: sbx.create_code_context().run_code(f"data = '{data}'\nprint(len(data))"),
        }
        got = {}
        for name, run in runs.items():
            try:
                got[name] = run().stdout
            except Exception as error:
                got[name] = f"{type(error).__name__}: {error}"
        return want, got


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
