"""A test suite needs a name for its local database and adds it to /etc/hosts with sed -i; then the sandbox is forked.

https://github.com/moby/moby/issues/28187 (moby/moby#28187), https://github.com/VirtusLab/sandcat/pull/55 (VirtusLab/sandcat#55): the file is a
mount of its own, so replacing it by rename is "Device or resource busy". On a machine it is a file like any other. A fork has the
line as well, and both know their own host names.
"""

import os
import signal
import sys

from pandastack import Sandbox


LOOK = 'getent hosts db.local; getent hosts "$(hostname)" | grep -c "$(hostname)"'


def trial():
    with Sandbox.create(template="base", ttl_seconds=120) as sbx:
        edit = sbx.exec("sed -i '$ a 127.0.0.9 db.local' /etc/hosts", timeout_seconds=20)
        here = sbx.exec(LOOK, timeout_seconds=20).stdout.split()
        with sbx.fork() as child:
            there = child.exec(LOOK, timeout_seconds=20).stdout.split()
            names = len({box.exec("hostname", timeout_seconds=20).stdout for box in (sbx, child)})
        got = {"sed": (edit.exit_code, edit.stderr.strip()[:120]), "here": here, "fork": there, "host names": names}
        fine = ["127.0.0.9", "db.local", "1"]
        return {"sed": (0, ""), "here": fine, "fork": fine, "host names": 2}, got


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
