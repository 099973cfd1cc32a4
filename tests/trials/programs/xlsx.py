""" "Here is my spreadsheet": a DataFrame goes to .xlsx and comes back, with a sheet's name and a date.

https://github.com/ricklamers/gpt-code-ui/issues/39 (ricklamers/gpt-code-ui#39), https://github.com/zstar1003/ragflow-plus/issues/149: the library
that pandas needs for it is missing, and where there is no network it cannot be installed. E2B's template for code has it
(https://github.com/e2b-dev/code-interpreter, template/requirements.txt).
"""

import os
import signal
import sys

from pandastack import Sandbox


CELL = """
import io, pandas as pd
frame = pd.DataFrame({"day": pd.to_datetime(["2024-02-29"]), "n": [3]})
book = io.BytesIO()
frame.to_excel(book, sheet_name="Umsatz 2024", index=False)
book.seek(0)
back = pd.read_excel(book, sheet_name="Umsatz 2024")
[str(back["day"][0].date()), int(back["n"][0])]
"""


def trial():
    with Sandbox.create(template="code-interpreter", ttl_seconds=120) as sbx, sbx.create_code_context() as ctx:
        ran = ctx.run_code(CELL, timeout_seconds=60)
        said = (ran.error or "").strip().rpartition("\n")[2]
        return {"value": "['2024-02-29', 3]", "error": ""}, {"value": ran.text, "error": said}


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
