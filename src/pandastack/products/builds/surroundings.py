"""What a build's command finds around it: the same in every build, and all different in the second of a verified one.

Pure: makes the shell commands that the guest runs.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pandastack.contract.templates import Template
from pandastack.in_guest import TRUST_ENVIRONMENT, trust_script
from pandastack.products.builds.spec import BuildSpec, Network

MISSING = 44
"""Exit code of the collecting command when an artifact does not exist."""

_ELSEWHERE_SECONDS = 200 * 24 * 3600 + 13 * 3600 + 17 * 60 + 5
"""How much later the second build of a verified one begins, by its clock: another year or season, day and hour."""
PROXY_PORT = 3128
"""Where the recording proxy is, on the guest's loopback."""

_PROXY = f"http://127.0.0.1:{PROXY_PORT}"
_NETWORK_ENVIRONMENT: Mapping[str, str] = {
    **dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), _PROXY),
    **dict.fromkeys(("no_proxy", "NO_PROXY"), "localhost,127.0.0.1"),
    **TRUST_ENVIRONMENT,
    "NODE_USE_ENV_PROXY": "1",
    # What clients ask for besides what they install would be in every lock.
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    "npm_config_audit": "false",
    "npm_config_fund": "false",
    "npm_config_update_notifier": "false",
}
"""Has ordinary clients use the proxy; callers may set these variables otherwise."""

_APT = """Acquire::Check-Date "false";
Acquire::Check-Valid-Until "false";
Acquire::gpgv::Options { "--ignore-time-conflict"; };
Acquire::Languages "none";
Acquire::PDiffs "false";
"""
"""The guest's clock is in the past of what apt fetches; signatures and hashes are checked as ever."""

_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Where a command is run. ``clock`` is in seconds since the epoch, ``cpu`` None the template's number."""

    epoch: int
    """The value of SOURCE_DATE_EPOCH, and the time of every file of the input."""
    clock: int
    root: str = "/build"
    hostname: str = "build"
    umask: int = 0o022
    locale: str = "C.UTF-8"
    timezone: str = "UTC"
    cpu: int | None = None
    reversed_input: bool = False
    """Whether the input is unpacked from its last name to its first."""
    network: Network = Network.NONE

    @property
    def source(self) -> str:
        """Where the input is, and the command begins."""
        return f"{self.root}/src"

    @property
    def out(self) -> str:
        """What becomes the artifacts."""
        return f"{self.root}/out"

    @property
    def home(self) -> str:
        return f"{self.root}/home"

    def described(self) -> dict[str, Any]:
        """For the provenance."""
        return {
            "clock": self.clock,
            "cpu": self.cpu,
            "hostname": self.hostname,
            "locale": self.locale,
            "network": self.network.value,
            "outputDirectory": self.out,
            "sourceDirectory": self.source,
            "timezone": self.timezone,
            "umask": f"{self.umask:04o}",
            "user": "root",
        }


def pinned(spec: BuildSpec, epoch: int, template: Template) -> Surroundings:
    """What every build has."""
    return Surroundings(epoch, clock=epoch, cpu=template.cpu if spec.cpu is None else spec.cpu, network=spec.network)


def different(first: Surroundings, template: Template) -> Surroundings:
    """The same build somewhere else: whatever of ``first`` ends up in an artifact shows. What the first has recorded,
    the second replays."""
    cpus = first.cpu or template.cpu
    return Surroundings(
        first.epoch,
        clock=first.clock + _ELSEWHERE_SECONDS,
        root="/srv/another-place/for-the-build",
        hostname="elsewhere",
        umask=0o077,
        locale="C",
        timezone="XYZ-13:30",
        cpu=cpus + 1 if cpus < template.max_cpu else max(cpus - 1, 1),
        reversed_input=True,
        network=Network.NONE if first.network is Network.NONE else Network.REPLAY,
    )


def variables(at: Surroundings, spec: BuildSpec, template_env: Mapping[str, str]) -> dict[str, str]:
    """The whole environment of the command: the template's, the caller's, and what is pinned."""
    pinned_ones = {
        "HOME": at.home,
        "LANG": at.locale,
        "LC_ALL": at.locale,
        "LOGNAME": "root",
        "OUT": at.out,
        "SHELL": "/bin/sh",
        "SOURCE_DATE_EPOCH": str(at.epoch),
        "TMPDIR": "/tmp",
        "TZ": at.timezone,
        "USER": "root",
    }
    network = {} if at.network is Network.NONE else _NETWORK_ENVIRONMENT
    return {"PATH": _DEFAULT_PATH, **template_env, **network, **spec.env, **pinned_ones}


def prepare_command(at: Surroundings, certificate: str = "") -> str:
    """Gives the unpacked input one time, makes the other directories, and names the machine. With a ``certificate``
    (PEM), has its programs trust it, and apt work at any date."""
    source, out, home = map(shlex.quote, (at.source, at.out, at.home))
    return "\n".join(
        (
            "set -e; umask 022",
            f"mkdir -p {source} {out} {home}",
            f"find {source} -exec touch -h -d @{at.epoch} {{}} +",
            f"echo {at.hostname} > /proc/sys/kernel/hostname; echo {at.hostname} > /etc/hostname",
            f"echo 127.0.1.1 {at.hostname} >> /etc/hosts",
            *(_network_commands(certificate) if certificate else ()),
        )
    )


def _network_commands(certificate: str) -> tuple[str, ...]:
    return (
        f"printf %s {shlex.quote(certificate)} | sh -c {shlex.quote(trust_script())}",
        "if test -d /etc/apt/apt.conf.d; then",
        f"printf %s {shlex.quote(_APT)} > /etc/apt/apt.conf.d/99pandastack-build",
        "fi",
    )


def build_command(at: Surroundings, spec: BuildSpec, template_env: Mapping[str, str]) -> str:
    """Sets the clock and becomes the caller's command, as a child of a shell that has nothing but these variables."""
    assignments = [f"{key}={value}" for key, value in sorted(variables(at, spec, template_env).items())]
    line = shlex.join(["exec", "env", "-i", *assignments, "/bin/sh", "-c", spec.command])
    return (
        f"date -u -s @{at.clock} > /dev/null || exit\numask {at.umask:04o}\ncd {shlex.quote(at.source)} || exit\n{line}"
    )


def collect_command(at: Surroundings, spec: BuildSpec) -> str:
    """Copies the artifacts below the input to the output directory; fails with :data:`MISSING` and the path."""
    lines = [f"cd {shlex.quote(at.source)} || exit"]
    for path in spec.artifacts:
        one = shlex.quote(path)
        lines.append(f"test -e {one} || {{ echo {one}; exit {MISSING}; }}")
        lines.append(f"cp -a --parents -- {one} {shlex.quote(at.out)} || exit")
    return "\n".join(lines)
