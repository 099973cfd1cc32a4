"""An updater moves the installed folder aside and the new one into its place, by rename(2) as it must to be atomic.

https://github.com/moby/moby/issues/25409 (moby/moby#25409), https://github.com/rust-lang/rustup/issues/1239 (rust-lang/rustup#1239),
https://github.com/microsoft/vscode/issues/176571: on an overlay a directory that came with the image cannot be renamed (EXDEV,
"Invalid cross-device link"). On one file system rename(2) never fails with that. The folder is used as it is in the template.
"""

import os
import signal
import sys

from pandastack import Sandbox


SWAP = """
import os
old, aside = "/usr/share/git-core", "/usr/share/git-core.old"
before = sorted(os.listdir(old))
os.rename(old, aside)
os.mkdir(old)
print("swapped", sorted(os.listdir(aside)) == before, os.listdir(old))
"""


def trial():
    with Sandbox.create(template="base", ttl_seconds=120) as sbx:
        sbx.filesystem.write("/workspace/swap.py", SWAP)
        ran = sbx.exec("python3 /workspace/swap.py", timeout_seconds=30)
        said = ran.stderr.strip().rpartition("\n")[2]
        return (0, "swapped True []\n", ""), (ran.exit_code, ran.stdout, said)


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
