"""Programs that tests run inside guests."""

from __future__ import annotations

from pandastack import Sandbox

COUNTER = (
    "[ -p /run/silence ] || mkfifo /run/silence; echo 000000 > /run/counter; "
    'setsid bash -c \'exec 3<>/run/silence; i=0; while :; do printf "%06d\\n" $((++i)) 1<>/run/counter; '
    "read -t 0.05 -u 3; done' </dev/null >/dev/null 2>&1 &"
)
"""A shell command that starts a process in the background: it counts in ``/run/counter`` for as long as it lives.

It starts no programs: ten machines with emulated CPUs run it at once in one test. The file is written over
in place: a reader finds one whole number or another.
"""

TICK = "read before < /run/counter; until read now < /run/counter && [ $now -gt $before ]; do sleep 0.05; done"
"""A shell command that ends when :data:`COUNTER` has counted on."""


def ticking(sandbox: Sandbox) -> bool:
    """Whether the sandbox's :data:`COUNTER` still counts."""
    return sandbox.exec(TICK, timeout_seconds=30).exit_code == 0
