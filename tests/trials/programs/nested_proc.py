"""A coding agent's own sandbox (bubblewrap, rootless podman, bazel) inside ours: new user and pid namespaces with a /proc of their own.

https://github.com/containers/bubblewrap/issues/505 and https://github.com/containers/bubblewrap/issues/738 (containers/bubblewrap#505, #738),
https://github.com/anthropic-experimental/sandbox-runtime/issues/214: mounting it is refused (EPERM) when something was
mounted over a part of /proc outside, and the kernel lets no user namespace see more than its creator. On a Debian machine, where
nothing covers /proc, it works, for root and for others.
"""

import os
import signal
import sys

from pandastack import Sandbox


NEST = "unshare --user --map-root-user --pid --fork --mount-proc sh -c 'cat /proc/1/comm; id -u'"


def trial():
    with Sandbox.create(template="base", ttl_seconds=120) as sbx:
        got = {}
        for user in ("root", "nobody"):
            process = sbx.processes.start(NEST, user=user, cwd="/")
            code = process.wait(timeout_seconds=30)
            said = process.output("stderr").decode(errors="replace").strip()
            got[user] = (code, process.output().decode(errors="replace").split(), said[:120])
        fine = (0, ["sh", "0"], "")
        return {"root": fine, "nobody": fine}, got


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
