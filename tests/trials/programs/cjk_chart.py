"""A chart with a Chinese, Japanese and Korean title, drawn with matplotlib as it comes: characters, not empty boxes.

https://github.com/e2b-dev/E2B/issues/818 (e2b-dev/E2B#818) and https://github.com/e2b-dev/code-interpreter/pull/52 (e2b-dev/code-interpreter#52),
https://github.com/langgenius/dify/issues/10777: without a font for them, and without telling matplotlib about it, every character is a
box. matplotlib warns about each missing glyph: there must be none, and still none for the minus sign.
"""

import os
import signal
import sys

from pandastack import Sandbox


CELL = """
import warnings, matplotlib.pyplot as plt
with warnings.catch_warnings(record=True) as seen:
    warnings.simplefilter("always")
    figure, axes = plt.subplots()
    axes.plot([-2, 3])
    axes.set_title("\u9500\u552e\u989d \u58f2\u4e0a \ub9e4\ucd9c")
    figure.canvas.draw()
plt.close(figure)
len({str(each.message) for each in seen if "missing from" in str(each.message)})
"""


def trial():
    with Sandbox.create(template="code-interpreter", ttl_seconds=120) as sbx, sbx.create_code_context() as ctx:
        ran = ctx.run_code(CELL, timeout_seconds=70)
        return {"missing glyphs": "0", "error": None}, {"missing glyphs": ran.text, "error": ran.error}


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
