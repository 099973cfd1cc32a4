"""The lines of shell that prepare a pool and carry a job out. Pure."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pandastack.errors import BadRequestError
from pandastack.products.runners.spec import PoolSpec
from pandastack.products.runners.states import Reason

_LONGEST = 120 * 1024
"""Linux takes an argument of at most 128 KiB, and quoting makes text longer."""

PROBE = "cat /proc/vmstat; echo; df -P -k / /tmp"
"""Says whether the kernel has killed for memory, and how full the disks are."""

_KILLED = re.compile(r"^oom_kill (\d{1,18})$", re.MULTILINE)
_FULL_KB = 1024


@dataclass(frozen=True, slots=True)
class Probed:
    """``oom_kills`` since the guest's boot; ``is_full``: a disk has no room."""

    oom_kills: int = 0
    is_full: bool = False

    def reason_since(self, oom_kills: int) -> Reason | None:
        """What explains a failure, if ``oom_kills`` was the number before."""
        if self.oom_kills > oom_kills:
            return Reason.OOM
        return Reason.DISK_FULL if self.is_full else None


def plan_step(command: str, directory: str, env: Mapping[str, str]) -> str:
    """Runs a command in the checkout with these variables. Raises :class:`BadRequestError` when both are too long."""
    assignments = [f"{name}={text}" for name, text in sorted(env.items())]
    words = ["exec", "env", *assignments, "/bin/sh", "-c", command]
    line = f"cd {shlex.quote(directory)} || exit\n{shlex.join(words)}"
    if len(line.encode("utf-8", "surrogatepass")) > _LONGEST:
        message = f"steps: a command and its variables must have at most {_LONGEST} bytes with their quotation marks"
        raise BadRequestError(message, field="steps")
    return line


def plan_checkout(pool: PoolSpec) -> str:
    """Makes the directory of the checkout, and fetches the repository into it if there is one."""
    where = shlex.quote(pool.directory)
    lines = ["set -e", f"mkdir -p {where}"]
    if pool.git is not None:
        lines += [f"cd {where}", "git init --quiet", f"git remote add origin {shlex.quote(pool.git.url)}"]
        lines += [_fetch(pool.git.ref)]
    return "\n".join(lines)


def plan_runner(program: str) -> str:
    """Runs GitHub's program, whose configuration for one job is the input. It refuses to run as root unless told."""
    return f'RUNNER_ALLOW_RUNASROOT=1 exec {shlex.quote(program)} --jitconfig "$(cat)"'


def plan_ref(directory: str, ref: str) -> str:
    """Moves the checkout of a job to another ref of the repository that it is of."""
    return "\n".join(["set -e", f"cd {shlex.quote(directory)}", _fetch(ref)])


def _fetch(ref: str) -> str:
    return (
        f"GIT_TERMINAL_PROMPT=0 git fetch --quiet --depth 1 origin {shlex.quote(ref)}\n"
        "git checkout --quiet --force --detach FETCH_HEAD"
    )


def plan_artifacts(directory: str, paths: Sequence[str]) -> str:
    """Prints a tar archive of those paths that exist; the others are named on standard error."""
    lines = [f"cd {shlex.quote(directory)} || exit", "set --"]
    for path in map(shlex.quote, (f"./{each}" for each in paths)):
        lines.append(f'if test -e {path}; then set -- "$@" {path}; else echo artifact {path} is missing >&2; fi')
    lines.append('test $# -gt 0 || set -- --files-from /dev/null; exec tar --format=posix --numeric-owner -cf - "$@"')
    return "\n".join(lines)


def parse_probe(text: str) -> Probed:
    """What :data:`PROBE` has printed. A guest that prints something else has no symptoms."""
    counters, _, disks = text.partition("\n\n")
    found = _KILLED.search(counters)
    free = [line.split()[3] for line in disks.splitlines()[1:] if len(line.split()) > 3]
    is_full = any(each.isascii() and each.isdecimal() and int(each[:18]) < _FULL_KB for each in free)
    return Probed(int(found[1]) if found else 0, is_full)
