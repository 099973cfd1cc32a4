"""A project folder that has its virtual environment in it goes into a sandbox, and another comes out of one.

https://github.com/a5c-ai/babysitter/issues/1757 (a5c-ai/babysitter#1757): an absolute symbolic link somewhere in the workspace (in a venv
bin/python3 is one) cuts its transfer off, and everything after it is missing. tar, rsync -a and docker cp copy the folder. The link
itself may be kept or left out; the project's files arrive, both ways.
"""

import os
import pathlib
import signal
import sys
import tempfile

from pandastack import Sandbox


def trial():
    with Sandbox.create(template="base", ttl_seconds=120) as sbx, tempfile.TemporaryDirectory() as place:
        here, back = pathlib.Path(place, "project"), pathlib.Path(place, "back")
        (here / ".venv/bin").mkdir(parents=True)
        (here / ".venv/bin/python3").symlink_to("/usr/bin/python3")
        (here / "src").mkdir()
        (here / "src/main.py").write_text("print('hello')\n")
        got = {}
        try:
            sbx.filesystem.upload_tree(here, "/workspace/up")
            got["up"] = sbx.exec("python3 /workspace/up/src/main.py", timeout_seconds=20).stdout
        except Exception as error:
            got["up"] = f"{type(error).__name__}: {error}"
        sbx.exec(
            "mkdir -p /workspace/down/src && cd /workspace/down && python3 -m venv --without-pip .venv && echo 42 > src/zz",
            timeout_seconds=60,
            check=True,
        )
        try:
            sbx.filesystem.download_tree("/workspace/down", back)
            got["down"] = (back / "src/zz").read_text()
        except Exception as error:
            got["down"] = f"{type(error).__name__}: {error}"
        return {"up": "hello\n", "down": "42\n"}, got


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
