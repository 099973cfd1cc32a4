"""Times of day in the user's zone: for one command, in Python, and for everything in the machine by /etc/environment.

https://github.com/fitlab-ai/agent-infra/issues/397 (fitlab-ai/agent-infra#397): without the zones' files TZ means UTC, silently.
https://github.com/vm0-ai/vm0/issues/7744 (vm0-ai/vm0#7744): the zone must reach every process, also in a sandbox that began from a snapshot.
The moment 0 is 08:00 in Shanghai and 19:00 (the evening before) in New York. A fork has the setting as well.
"""

import os
import signal
import sys

from pandastack import Sandbox


PYTHON = (
    'python3 -c "from zoneinfo import ZoneInfo; from datetime import datetime; '
    "print(datetime.fromtimestamp(0, ZoneInfo('America/New_York')).strftime('%H:%M %z'))\""
)


def trial():
    with Sandbox.create(template="base", ttl_seconds=120) as sbx:
        one = sbx.exec("TZ=Asia/Shanghai date -d @0 '+%H:%M %z'", timeout_seconds=20).stdout.strip()
        two = sbx.exec(PYTHON, timeout_seconds=20)
        sbx.filesystem.write("/etc/environment", "TZ=Asia/Shanghai\n")
        three = sbx.exec("date -d @0 '+%H:%M %z'", timeout_seconds=20).stdout.strip()
        with sbx.fork() as child:
            four = child.exec("date -d @0 '+%H:%M %z'", timeout_seconds=20).stdout.strip()
        got = [one, two.stdout.strip() or two.stderr.strip()[-120:], three, four]
        return ["08:00 +0800", "19:00 -0500", "08:00 +0800", "08:00 +0800"], got


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
