"""Programs that tests run inside guests."""

from __future__ import annotations

from pandastack import Sandbox

COUNTER = (
    "echo 0 > /run/counter; "
    "setsid sh -c 'i=0; while :; do i=$((i+1)); echo $i > /run/next; mv /run/next /run/counter; sleep 0.05; done' "
    "</dev/null >/dev/null 2>&1 &"
)
"""A shell command that starts a process in the background: it counts in ``/run/counter`` for as long as it lives."""

TICK = "before=$(cat /run/counter); until [ $(cat /run/counter) -gt $before ]; do sleep 0.1; done"
"""A shell command that ends when :data:`COUNTER` has counted on. It looks rarely: the guest needs the time."""


def ticking(sandbox: Sandbox) -> bool:
    """Whether the sandbox's :data:`COUNTER` still counts."""
    return sandbox.exec(TICK, timeout_seconds=30).exit_code == 0
